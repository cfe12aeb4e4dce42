"""Why a test is skipped, and what a reader does to run it: one wording of each."""

BUBBLEWRAP = (
    "no bubblewrap that may make a namespace here: apt-get install bubblewrap, and allow user namespaces"
    " (sysctl kernel.unprivileged_userns_clone=1) or run as root"
)
DATA = (
    "the real data sets are not at {place}: point HACKWARD_DATA at a folder with"
    " leetcode_v0.2.0_train.jsonl.gz, rl_rewardhacking_test_medhard.jsonl.gz and rh_teacher_pool"
)
FOUND_ROWS = (
    "the rows that were mislabelled are not at {place}: they come with those data sets (HACKWARD_DATA)"
)
GPU = "needs a GPU that torch can use (pip install -r requirements.txt on a machine with one)"
LANDLOCK = "this kernel has no Landlock: Linux 5.13 or newer with landlock among its lsm= modules"
ORDINARY_USER = "root may write anywhere: run it as an ordinary user"
RAY = "needs Ray: pip install the line `ray` of pyproject.toml's optional dependencies"
SLOW = "takes long: HACKWARD_SLOW=1 runs it"
TENSORBOARD = "needs TensorBoard: pip install -r requirements-dev.txt"
TRAIN = "leetcode_v0.2.0_train.jsonl.gz"  # where it is, the real data sets are
