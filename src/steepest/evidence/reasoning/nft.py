"""NFT against DAPO on the same sampling: is likelihood as good as a policy gradient?"""

from functools import partial

from ...problems.language import AddCliff
from ...systems.reasoning.dapo import dapo
from ...systems.reasoning.nft import nft
from ..claim import Claim, final

claim = Claim(
    says="With 2 updates on the same answers NFT learns sums of 3 to 6 digits no worse (by 0.05) than DAPO.",
    problem=partial(AddCliff),
    ours=partial(nft, lr=3e-4, prompts=16, group=8, minibatches=2),
    baseline=partial(dapo, lr=3e-4, prompts=16, group=8, minibatches=2, soft=0.01),
    measure=final("accuracy"),
    unit="accuracy of sampled answers on sums of 3 to 6 digits",
    steps=15,
    seeds=5,
    margin=-0.05,
    tried=(
        "Nothing is tuned: both arms have the learning rate and the batch of GRPO's own claim, and both ask again for groups that "
        "agree. DAPO's penalty on length is all but off, NFT reads verdicts. Fixed before the first run."
    ),
)
