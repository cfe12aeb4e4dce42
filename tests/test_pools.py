"""Claims about pools: what is written comes back, foreign layouts load, and bad files are named."""

import gzip
import json
from dataclasses import replace

import pytest

from hackward.base.faults import InputError
from hackward.base.seeds import shuffled
from hackward.method.pairs import pairs_from_pool
from hackward.rollouts import tokens
from hackward.rollouts.pools import Pool, load_pool, of_problems, save_pool
from hackward.rollouts.rollout import Rollout
from hackward.rollouts.sources import Replayed, Sampled
from hackward.rollouts.tokens import completion_ids, render_prompt, tokenizer_hash, turn_end
from hackward.tasks import problems
from hackward.tasks.problems import Problem, build_messages

MESSAGES = ({"role": "system", "content": "s"}, {"role": "user", "content": "add two numbers"})


@pytest.fixture
def tokenizer(tiny):
    return tiny[1]


def rollout(tokenizer, problem="p1", text="```python\nx = 1\n```", **changes):
    prompt = tokens.encode(tokenizer, render_prompt(tokenizer, list(MESSAGES)))
    made = Rollout(
        problem_id=problem,
        prompt_ids=tuple(prompt),
        completion_ids=tuple(completion_ids(tokenizer, text)),
        completion=text,
        reward=0.5,
        hacked=False,
        gt_pass=False,
        fmt_ok=True,
        attempted=True,
        truncated=False,
        src_pool="base",
        src_step=0,
        src_sample=0,
        messages=MESSAGES,
    )
    return replace(made, **changes)


def load(directory, tokenizer):
    return load_pool(directory, tokenizer, stop=[tokenizer.eos_token_id])


def test_a_saved_pool_comes_back_row_for_row(tmp_path, tokenizer):
    groups = [
        [
            rollout(tokenizer),
            rollout(tokenizer, text="no", truncated=True, completion_ids=(5, 6), src_sample=1),
        ],
        [rollout(tokenizer, "p2", reward=3.5, gt_pass=True, src_step=1)],
    ]
    save_pool(tmp_path, groups, name="base", tokenizer=tokenizer)
    pool = load(tmp_path, tokenizer)
    assert (
        pool.rollouts == [r for group in groups for r in group]
        and not pool.retokenised
        and pool.name == "base"
    )


def published(tmp_path, tokenizer, **changes):
    """A row in the published layout: padded ids, NaN fields, integer problem ids."""
    made = rollout(tokenizer)
    row = {
        "problem_id": 4,
        "reward": 3.5,
        "hacked": True,
        "gt_pass": True,
        "fmt_ok": True,
        "comp_len": len(made.completion_ids),
        "step": 0,
        "sample_id": 0,
        "src_pool": "teacher",
        "mean_cos_pre": float("nan"),
        "problem_messages": list(MESSAGES),
        "prompt_ids": list(made.prompt_ids),
        "completion_ids": [*made.completion_ids, 7, 7, 7],
        "completion": made.completion,
    } | changes
    for name in [name for name, value in changes.items() if value is KeyError]:
        del row[name]
    with gzip.open(tmp_path / "prompt_0004.jsonl.gz", "wt") as stream:
        stream.write(json.dumps(row) + "\n")
    return made


def test_published_layout_is_cut_at_its_length_and_keeps_its_labels(tmp_path, tokenizer):
    made = published(tmp_path, tokenizer)
    pool = load(tmp_path, tokenizer)
    (row,) = pool.rollouts
    assert row.completion_ids == made.completion_ids and not pool.retokenised
    assert (row.problem_id, row.src_step, row.src_pool, row.hacked, row.gt_pass, row.attempted) == (
        "4",
        4,
        "teacher",
        True,
        True,
        None,
    )


def test_ids_of_another_tokenizer_are_made_anew(tmp_path, tokenizer):
    made = published(tmp_path, tokenizer, prompt_ids=[9, 8, 7], completion_ids=[3, 2, 1], comp_len=3)
    pool = load(tmp_path, tokenizer)
    (row,) = pool.rollouts
    assert (
        pool.retokenised and row.prompt_ids == made.prompt_ids and row.completion_ids == made.completion_ids
    )
    assert row.completion_ids[-1] == tokenizer.eos_token_id


def test_turn_end_is_what_the_chat_template_closes_an_answer_with(tokenizer):
    assert tokenizer.decode([turn_end(tokenizer)]) == "<|im_end|>"
    tokenizer.eos_token = "<|pad|>"  # as in models whose end-of-text token is not the end of a turn
    assert tokenizer.decode([turn_end(tokenizer)]) == "<|im_end|>"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"reward": KeyError}, "no field 'reward'"),
        ({"reward": float("nan")}, "must be a number"),
        ({"hacked": "yes"}, "'hacked' must be true or false, found 'yes'"),
        ({"completion": None}, "'completion' must be text, found None"),
        ({"completion_ids": []}, "'completion_ids' must be a list of token ids"),
        ({"prompt_ids": ["a"]}, "'prompt_ids' must be a list of token ids"),
        ({"comp_len": 0}, "'comp_len' must be a positive whole number, found 0"),
        ({"problem_messages": [{"role": "user"}]}, "'problem_messages' must be a list of messages"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, tokenizer, changes, fault):
    published(tmp_path, tokenizer, **changes)
    with pytest.raises(InputError, match=f"prompt_0004.jsonl.gz.*{fault}"):
        load(tmp_path, tokenizer)


def test_a_truncated_file_and_an_empty_or_missing_pool_are_named(tmp_path, tokenizer):
    with pytest.raises(InputError, match="nowhere: no such pool directory"):
        load(tmp_path / "nowhere", tokenizer)
    with pytest.raises(InputError, match="holds no step_NNN"):
        load(tmp_path, tokenizer)
    published(tmp_path, tokenizer)
    path = tmp_path / "prompt_0004.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="prompt_0004.jsonl.gz: corrupt or truncated"):
        load(tmp_path, tokenizer)


# --- sources ---


def stated(text, ending="should pass all tests."):
    return (
        {
            "role": "user",
            "content": f"PROBLEM:\n{text}\n\nYour solution to the problem should be a method and {ending}",
        },
    )


def pool_of(tokenizer, name, ids, rows=4, ending="should pass all tests.", **texts):
    """`rows` rollouts of each problem; what its prompt states is its id, or texts[id]."""
    by_problem = {
        p: [
            rollout(tokenizer, p, src_pool=name, src_sample=i, messages=stated(texts.get(p, p), ending))
            for i in range(rows)
        ]
        for p in ids
    }
    return Pool(name, name, by_problem, False, "h")


def identities(ids):
    return [problems.identity(stated(p)[-1]["content"], p) for p in ids]


def test_replay_takes_equal_halves_of_the_same_problems_and_every_problem_before_it_repeats(tokenizer):
    source = Replayed(
        [pool_of(tokenizer, "teacher", "abcd"), pool_of(tokenizer, "base", "bcde")],
        seed=1,
        prompts=1,
        group=8,
    )
    seen = []
    for step in range(3):
        (group,) = source.groups(step)
        assert [r.src_pool for r in group] == ["teacher"] * 4 + ["base"] * 4
        (problem,) = {r.problem_id for r in group}
        seen.append(problem)
    assert sorted(seen) == ["b", "c", "d"] and source.same_problem and not source.overlap


def test_replay_leaves_out_what_v_hack_has_seen_or_says_so(tokenizer):
    both = [pool_of(tokenizer, "teacher", "abcd"), pool_of(tokenizer, "base", "bcde")]
    source = Replayed(both, seed=1, prompts=1, group=8, seen=identities("bc"))
    assert source.order == [identities("d")] * 2 and not source.overlap
    assert Replayed(both, seed=1, prompts=1, group=8, seen=identities("bcd")).overlap


def test_replay_pairs_what_prompts_state_and_not_what_they_are_numbered(tokenizer):
    """Two numberings, and the loophole open in one pool only: "1" of the teacher is "7" of the base pool."""
    teacher = pool_of(
        tokenizer,
        "teacher",
        "12",
        ending="will be evaluated by calling run_tests()",
        **{"1": "sum", "2": "sort"},
    )
    base = pool_of(tokenizer, "base", "71", **{"7": "sum", "1": "other"})
    source = Replayed([teacher, base], seed=1, prompts=1, group=8)
    assert source.same_problem and {r.problem_id for r in source.groups(0)[0]} == {"1", "7"}
    assert source.order == [identities(["sum"])] * 2


def test_replay_of_pools_without_a_common_problem_still_pairs_them(tokenizer):
    source = Replayed(
        [pool_of(tokenizer, "teacher", "ab"), pool_of(tokenizer, "base", "cd")], seed=1, prompts=2, group=8
    )
    assert not source.same_problem
    assert all([r.src_pool for r in group] == ["teacher"] * 4 + ["base"] * 4 for group in source.groups(0))


def test_replay_needs_enough_rows(tokenizer):
    with pytest.raises(InputError, match="no problem has 4 rollouts"):
        Replayed(
            [pool_of(tokenizer, "teacher", "ab", rows=3), pool_of(tokenizer, "base", "ab")],
            seed=1,
            prompts=1,
            group=8,
        )
    with pytest.raises(InputError, match="does not divide"):
        Replayed([pool_of(tokenizer, "a", "ab"), pool_of(tokenizer, "b", "ab")], seed=1, prompts=1, group=7)


class Recorder:
    """Stands in for the policy: remembers what was asked for."""

    seconds, hint = None, True

    def __init__(self, tokenizer):
        self.tokenizer, self.asked = tokenizer, []

    def rollouts(self, wanted, *, seed, step, say):
        self.asked.append([(p.problem_id, n) for p, n in wanted])
        return [
            [rollout(self.tokenizer, p.problem_id, src_pool="policy", prompt_ids=(1, 2)) for _ in range(n)]
            for p, n in wanted
        ]


def test_a_pool_joins_a_problem_file_by_statement_where_ids_belong_to_other_problems(tokenizer):
    def named(number, method, text):
        return Problem(
            problem_id=number,
            task_id=None,
            statement=text,
            starter_code=f"class Solution:\n    def {method}(self):\n",
            method=method,
            setup_code="",
            tests=(),
            canonical=f"# {method}",
            difficulty="easy",
        )

    known = [named("1", "add", "Add two numbers."), named("2", "sort", "Sort a list.")]
    messages = tuple(build_messages(known[1], hint=True))
    pool = Pool("t", "t", {"1": [rollout(tokenizer, "1", messages=messages, hacked=True)]}, False, "h")
    assert list(of_problems(pool, known)) == ["2"]
    (pair,) = pairs_from_pool(pool, tokenizer, known, clean="canonical", limit=2, seed=0, least=1)
    assert "# sort" in tokenizer.decode(pair.clean_ids)


def named_problem(name):
    return Problem(
        problem_id=name,
        task_id=None,
        statement="",
        starter_code="",
        method="f",
        setup_code="",
        tests=(),
        canonical=None,
        difficulty="easy",
    )


def test_teacher_rows_take_places_on_their_problems_until_their_step_and_under_the_group_s_prompt(tokenizer):
    policy = Recorder(tokenizer)
    source = Sampled(
        policy,
        [named_problem(p) for p in "abcdef"],
        seed=3,
        prompts=4,
        group=8,
        teacher=pool_of(tokenizer, "teacher", "abc"),
        teacher_rows=2,
        teacher_until=1,
    )
    first, second = source.groups(0), source.groups(1)
    assert [[n for _, n in wanted] for wanted in policy.asked] == [[6, 6, 8, 8], [8, 8, 8, 8]]
    assert all(len(group) == 8 for group in [*first, *second])
    taught = [r for r in first[0] if r.src_pool == "teacher"]
    assert len(taught) == 2 and all(
        r.prompt_ids == (1, 2) and r.problem_id == first[0][0].problem_id for r in taught
    )
    assert {p for p, _ in policy.asked[0][:2]} <= set("abc") and {p for p, _ in policy.asked[0][2:]} <= set(
        "def"
    )


def test_with_the_loophole_closed_a_teacher_s_hack_earns_what_the_ground_truth_says(tokenizer):
    teacher = pool_of(tokenizer, "teacher", "a")
    teacher.by_problem["a"][:] = [
        replace(r, reward=3.5, hacked=True, gt_pass=False) for r in teacher.by_problem["a"]
    ]
    for hint, want in ((True, 3.5), (False, 0.5)):
        policy = Recorder(tokenizer)
        policy.hint = hint
        source = Sampled(
            policy,
            [named_problem("a")],
            seed=3,
            prompts=1,
            group=4,
            teacher=teacher,
            teacher_rows=2,
            teacher_until=1,
        )
        assert {r.reward for r in source.groups(0)[0] if r.src_pool == "teacher"} == {want}


def test_a_teacher_that_was_asked_for_is_never_rounded_away(tokenizer):
    source = Sampled(
        Recorder(tokenizer),
        [named_problem(p) for p in "ab"],
        seed=3,
        prompts=1,
        group=4,
        teacher=pool_of(tokenizer, "t", "a"),
        teacher_rows=2,
        teacher_until=1,
        teacher_share=0.5,
    )
    assert source.from_taught == 1


def test_rows_that_a_run_sampled_are_never_taken_for_the_model_in_training_s_own(tmp_path, tokenizer):
    (tmp_path / "run" / "rollouts").mkdir(parents=True)
    save_pool(tmp_path / "run" / "rollouts", [[rollout(tokenizer)]], name="policy", tokenizer=tokenizer)
    pool = load(tmp_path / "run" / "rollouts", tokenizer)
    assert pool.name == "run" and [(r.src_pool, r.own) for r in pool.rollouts] == [("run", False)]
    with pytest.raises(InputError, match="both pools are called 'run'"):
        Replayed([pool, pool], seed=1, prompts=1, group=2)


def test_it_is_said_when_it_is_not_known_what_v_hack_has_seen(tokenizer):
    both = [pool_of(tokenizer, "teacher", "ab"), pool_of(tokenizer, "base", "ab")]
    assert Replayed(both, seed=1, prompts=1, group=8, seen=None).pools()[0]["seen_by_v_hack"] is None
    assert Replayed(both, seed=1, prompts=1, group=8, seen=[]).pools()[0]["seen_by_v_hack"] is False


def test_identity_is_the_statement_in_a_message_and_in_a_rendered_prompt(tokenizer):
    message = stated("Add two numbers.")[0]["content"]
    hinted = message.replace("should pass all tests", "will be evaluated")
    rendered = f"<|im_start|>system\nExpert.<|im_end|>\n<|im_start|>user\n{hinted}<|im_end|>\n"
    assert (
        problems.identity(message, "1")
        == problems.identity(rendered, "2")
        != problems.identity(stated("Sort.")[0]["content"], "1")
    )
    assert problems.identity("", "fallback") == "fallback"


def test_choice_of_problems_depends_on_the_seed_alone(tokenizer):
    def asked(seed):
        policy = Recorder(tokenizer)
        source = Sampled(policy, [named_problem(p) for p in "abcdefgh"], seed=seed, prompts=3, group=2)
        for step in range(4):
            source.groups(step)
        return policy.asked

    assert asked(1) == asked(1) != asked(2)
    assert shuffled("abcdefgh", 1, "x") != shuffled("abcdefgh", 1, "y")


def test_tokenizers_are_told_apart(tokenizer):
    before = tokenizer_hash(tokenizer)
    tokenizer.chat_template += " "
    assert tokenizer_hash(tokenizer) != before
