"""The harness shows that it can fail: faults planted in programs are noticed, or it is said why no probe can."""

import io
from dataclasses import replace
from functools import cache

import helpers
import pytest
from click.testing import CliRunner
from jax.extend.core import jaxpr_as_fun
from rich.console import Console

from equiv.comparison.pipeline import RunOptions, run_case
from equiv.comparison.selfcheck.selfcheck import run_selfcheck
from equiv.core import results, results_json
from equiv.core import selfcheck_results as kills
from equiv.frontends.cli.main import main
from equiv.programs.mutation.mutate import FAULTS, generate_mutants, mutate_randomly
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.traced_port import trace_port
from equiv.report.terminal.run import print_run

SMALL = ("counter", "custom_linear", "rnn_scan")


@cache
def planted(name: str, fresh: bool = False) -> kills.SelfcheckResult:
    """A case with every fault of the catalogue in it."""
    return run_selfcheck(helpers.loaded(name), fresh=fresh)


@cache
def programs(name: str):
    """The programs of a case's Linen port."""
    return all_programs(trace_port(helpers.workshop_of(name), "linen").programs)


def test_the_catalogue_has_forty_kinds_with_name_and_bug() -> None:
    """No row hides another."""
    assert len({fault.kind for fault in FAULTS}) == len(FAULTS) >= 40


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", SMALL)
def test_every_planted_fault_is_noticed_or_has_a_reason(name: str) -> None:
    """None is hidden by the budget."""
    result = planted(name)
    found = kills.count_outcomes(result.mutants)
    assert found["killed"] > 100
    assert found["survived"] == 0
    assert all(kill.reason for kill in result.mutants if kill.outcome != "killed")
    assert all(kill.place for kill in result.mutants if kill.outcome == "killed")


@pytest.mark.slow
def test_fresh_leaves_and_a_batch_of_ones_notice_fewer() -> None:
    """It is why probes are randomised."""
    share = {}
    for fresh in (False, True):
        found = kills.count_outcomes(planted("rnn_scan", fresh).mutants)
        share[fresh] = found["killed"] / found.total()
    assert share[True] < share[False]


@pytest.mark.parametrize("name", SMALL)
def test_a_mutant_keeps_its_programs_names_and_type_checks(name: str) -> None:
    """One mutant of each kind and program is traced again, as it would be run."""
    import jax

    mutants = [next(generate_mutants(program, fault), None) for program in programs(name) for fault in FAULTS]
    tried = [(mutation, mutant) for mutation, mutant in filter(None, mutants)]
    assert len(tried) > 50
    for mutation, mutant in tried:
        (original,) = [program for program in programs(name) if program.name == mutation.program]
        assert (mutant.inputs, mutant.outputs) == (original.inputs, original.outputs)
        shapes = jax.eval_shape(jaxpr_as_fun(mutant.jaxpr), *mutant.jaxpr.in_avals)
        assert [out.shape for out in shapes] == [aval.shape for aval in original.jaxpr.out_avals], mutation


def test_a_random_mutation_is_the_same_for_the_same_seed() -> None:
    """Deterministic, so that a finding can be looked at again."""
    program = programs("rnn_scan")[0]
    assert mutate_randomly(program, 3)[0] == mutate_randomly(program, 3)[0]
    assert len({mutate_randomly(program, seed)[0] for seed in range(12)}) > 6


def test_the_command_counts_first_and_exits_zero_without_survivors() -> None:
    """The matrix follows."""
    ran = CliRunner().invoke(main, ["selfcheck", str(helpers.CASES), "-k", "counter"])
    assert ran.exit_code == 0
    assert ran.stdout.splitlines()[0].endswith(" 0 survived")
    assert "stale state" in ran.stdout


def test_a_survivor_is_exit_code_one_and_a_problem_two() -> None:
    """As in `diff`."""
    kill = kills.MutantResult("nnx", "eps x 10", "step", "add", "survived", reason="hidden")
    result = kills.SelfcheckResult("case", False, (kill,))
    assert kills.selfcheck_exit_code(kills.summarise_selfcheck([result])) == 1
    assert (
        kills.selfcheck_exit_code(kills.summarise_selfcheck([kills.SelfcheckResult("case", False, problem="broken")]))
        == 2
    )
    assert kills.selfcheck_exit_code(kills.summarise_selfcheck([])) == 3


def test_a_run_with_selfcheck_keeps_the_counts_and_says_them(tmp_path) -> None:
    """In the results as one row a candidate and kind of fault, and in the lines before the table's end."""
    ran = CliRunner().invoke(
        main, ["run", str(helpers.CASES / "custom_linear.py"), "--selfcheck", "--reports", str(tmp_path)]
    )
    (case,) = results_json.read_results(tmp_path / "results.json").cases
    found = kills.count_outcomes(planted("custom_linear").mutants)
    assert case.faults == replace(kills.fault_matrix(planted("custom_linear")), seconds=case.faults.seconds)
    assert sum(sum(row.outcomes.values()) for row in case.faults.rows) == found.total()
    assert f"\nfaults: {found['killed']} of {found.total()} mutants killed, " in ran.stdout
    assert ran.exit_code == 0


def test_a_candidate_that_cannot_be_built_has_no_faults() -> None:
    def broken():
        raise ValueError("no model")

    loaded = helpers.loaded("custom_linear")
    case = replace(loaded.case, models={"haiku": loaded.case.models["haiku"], "nnx": broken})
    result = run_case(replace(loaded, case=case), options=RunOptions(faults=True))
    assert dict(result.verdicts) == {"nnx": "error"}
    assert result.faults is not None
    assert "nnx: building the model raised ValueError: no model" in result.faults.problem


def test_a_run_without_selfcheck_says_so() -> None:
    """No count is better than one that was not made."""
    shown = show_run(None)
    assert "\nfaults: none planted; run `equiv run --selfcheck` to plant some\n" in shown


def test_a_fault_that_survives_is_seen_in_the_run() -> None:
    """With a sign, not by colour alone; and so is trouble in planting."""
    row = kills.FaultRow("linen", "eps x 10", {"killed": 2, "survived": 1}, {"outputs": 2})
    assert "\n✗ faults: 2 of 3 mutants killed, 0 equivalent, 0 unidentifiable, 1 survived\n" in show_run(
        kills.FaultMatrix((row,))
    )
    assert "✗ faults: 0 of 0 mutants killed, 0 equivalent, 0 unidentifiable, 0 survived; some: no float64" in (
        show_run(kills.FaultMatrix((), problem="no float64 run"))
    )


def show_run(faults: kills.FaultMatrix | None) -> str:
    """A run of one case as the terminal shows it."""
    verdicts: dict[str, results.Verdict] = {"linen": "same"}
    case = results.CaseResult("some", "", "", "haiku", ("linen",), verdicts, (), faults=faults)
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_run(results.RunResult("same", "Same.", {}, (case,), "", 0.0), console)
    return console.file.getvalue()
