"""The look of a report: readable on a phone, in the light and in the dark."""

STYLE = """
:root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1d2129;--quiet:#667080;--line:#e3e5e8;--yes:#11734a;--no:#8a5a00;
--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#b0508a;--s4:#a67c00;--s5:#3a8fc4;--s6:#6b5bd2;--s7:#5b5b5b}
@media(prefers-color-scheme:dark){:root{--ground:#14161a;--card:#1c1f25;--ink:#e6e8ec;--quiet:#98a1af;--line:#31363f;--yes:#5fd39b;--no:#e9b44c;
--s0:#56b4e9;--s1:#ff8f4d;--s2:#3ecfa0;--s3:#e39bc6;--s4:#e6c04a;--s5:#8fd0f5;--s6:#aaa0ff;--s7:#c4c7cc}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 16px 48px}
h1{font-size:1.7rem;margin:0 0 18px;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:0 0 10px;overflow-wrap:anywhere}
h3{font-size:.95rem;margin:16px 0 6px}
p{margin:6px 0 10px;max-width:75ch;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px;margin:0 0 18px}
.quiet,footer{color:var(--quiet);font-size:.87rem}
.wide{overflow-x:auto;margin:8px 0 12px}
table{max-width:100%;border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 18px 5px 0;border-bottom:1px solid var(--line);white-space:nowrap}
.right{text-align:right}
td:last-child:not(.right){white-space:normal;min-width:30ch}
@media(max-width:600px){main{padding:16px 8px}section{padding:14px 12px}th,td{padding-right:12px}}
th{color:var(--quiet);font-weight:600}
tbody tr:last-child td{border-bottom:0}
dl{columns:300px;column-gap:36px;margin:8px 0 12px;font-size:.87rem}
dl div{display:flex;justify-content:space-between;gap:14px;padding:3px 0;border-bottom:1px solid var(--line);break-inside:avoid}
dt{color:var(--quiet)}
dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:0;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,310px),1fr));gap:18px;align-items:start;margin:12px 0}
figure{margin:0;min-width:0;max-width:460px}
figcaption{font-weight:600;font-size:.9rem;margin-bottom:4px;overflow-wrap:anywhere}
svg{width:100%;height:auto;display:block}
svg text{fill:var(--quiet);font-size:12px}
.grid{stroke:var(--line)}
.pair{stroke:var(--quiet);opacity:.6}
polyline{fill:none;stroke-width:2;stroke-linejoin:round}
.bar{stroke-width:12;opacity:.35}
.mark{stroke-width:3}
.faint{opacity:.28;stroke-width:1}
pre{background:var(--ground);border:1px solid var(--line);border-radius:8px;padding:10px 12px;
overflow-x:auto;margin:6px 0 12px;font-size:.87rem}
summary{cursor:pointer;color:var(--quiet);margin-top:8px}
.yes,.no{font-size:.85rem;font-weight:600;padding:1px 9px;border:1px solid;border-radius:99px;white-space:nowrap}
.yes{color:var(--yes)}.no{color:var(--no)}
a{color:var(--s0)}
.key{display:inline-block;margin-right:14px;font-size:.87rem;overflow-wrap:anywhere}
.key::before{content:"";display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px;background:currentColor}
""" + "".join(
    f"polyline.s{k},line.s{k}{{stroke:var(--s{k})}}circle.s{k}{{fill:var(--s{k})}}.k{k}::before{{background:var(--s{k})}}\n"
    for k in range(8)
)
