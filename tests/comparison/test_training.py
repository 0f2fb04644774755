"""Training: state kept elsewhere, an average beside it, one-sided and default steps, whose difference it is."""

from dataclasses import replace

import jax
import optax
import pytest
from helpers import just
from trained_ports import FORMS, PORTS, averaged_port, case_of, haiku_port, linen_port, loaded_case, loss, nnx_port

from equiv.comparison.explain.updates import MEASURED_NOTE, PROVED_NOTE
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case_files import LoadedCase
from equiv.core.grades import EQUAL_GRADES
from equiv.core.headline import summarise_run, verdict_words
from equiv.core.results import CaseResult, CheckResult


def judged(prove_only: bool = False, **models) -> CaseResult:
    """Run a case of these ports; the first is the reference."""
    return run_case(loaded_case(**models), options=RunOptions(prove_only=prove_only))


def trained(**models) -> CaseResult:
    """Compare the training of these ports alone."""
    loaded = loaded_case(**models)
    return run_case(replace(loaded, case=replace(loaded.case, checks=just("train"))))


def check_of(result: CaseResult, name: str = "train") -> CheckResult:
    """The check of the only candidate."""
    (found,) = [check for check in result.checks if check.check == name]
    return found


TRANSFORMS = {
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(0.1),
    "chain with a schedule": lambda: optax.chain(optax.clip(1.0), optax.adam(optax.cosine_decay_schedule(0.1, 9))),
    "small steps": lambda: optax.MultiSteps(optax.adam(0.1), 2),
    "an average of updates": lambda: optax.chain(optax.sgd(0.1), optax.ema(0.9)),
    "noise by a typed key": lambda: optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1)),
}


KEPT = list(
    zip(TRANSFORMS, ("deeper", "much deeper", "beside a step", "deeper", "beside a step", "deeper"), strict=True)
)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("transform", "form"), KEPT)
def test_state_kept_elsewhere_is_the_same(transform, form):
    """Every kind of optimizer, every form but those with an average."""
    tx = TRANSFORMS[transform]
    result = trained(linen=linen_port(tx(), FORMS[form]), nnx=nnx_port(tx()))
    assert result.verdicts == {"nnx": "same"}
    assert check_of(result).remarks == ()


@pytest.mark.quick(2)
@pytest.mark.parametrize("form", [form for form in FORMS if "average" in form])
@pytest.mark.parametrize("first", ["kept", "without"])
def test_an_average_that_one_port_keeps_is_told(form, first):
    """It follows training and changes nothing, whichever port has it."""
    models = {"haiku": haiku_port(optax.adam(0.1), FORMS[form]), "nnx": nnx_port(optax.adam(0.1))}
    result = trained(**(models if first == "kept" else dict(reversed(models.items()))))
    assert set(result.verdicts.values()) == {"same"}
    (remark,) = check_of(result).remarks
    assert remark.startswith("only haiku keeps opt_state")
    assert "(2), on which nothing depends that nnx has too: it is not compared" in remark


@pytest.mark.quick(1)
@pytest.mark.parametrize("library", ["nnx", "haiku"])
def test_an_average_in_a_train_state_is_not_compared(library):
    """Whose parameters would otherwise be taken for those of the model, or the other way round."""
    tx = optax.adam(0.1)
    result = trained(linen=averaged_port(tx), **{library: PORTS[library](tx)})
    assert result.verdicts == {library: "same"}
    (remark,) = check_of(result).remarks
    assert remark.startswith("only linen keeps opt_state/average (2), on which nothing depends")


def test_an_average_that_both_ports_keep_is_compared():
    """In a train state here, beside the optimizer's state there; one that is averaged otherwise is a difference."""
    ours, theirs = averaged_port(optax.adam(0.1)), haiku_port(optax.adam(0.1), FORMS["beside an average"])
    result = trained(linen=ours, haiku=theirs)
    assert result.verdicts == {"haiku": "same"}
    assert {"fc/bias", "fc/kernel"} == {
        finding.output.leaf for finding in check_of(result).findings if finding.output.path == "opt_state/average/"
    }
    other = trained(linen=averaged_port(optax.adam(0.1), decay=0.8), haiku=theirs)
    refuted = {finding.output.path for finding in check_of(other).findings if finding.grade == "refuted"}
    assert refuted == {"opt_state/average/"}


def test_proofs_alone_judge_state_kept_elsewhere_too():
    kept, flat = (linen_port(optax.adam(0.1), FORMS[form]) for form in ("beside an average", "flat"))
    result = judged(prove_only=True, linen=kept, nnx=nnx_port(optax.adam(0.1)))
    assert result.verdicts == {"nnx": "same"}
    assert len(check_of(result).remarks) == 1
    assert check_of(judged(prove_only=True, linen=flat, nnx=nnx_port(optax.adam(0.1)))).remarks == ()


CHANGED = {
    "no momentum": optax.sgd(0.1),
    "another momentum": optax.sgd(0.1, momentum=0.8),
    "another kind of momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "another rate": optax.sgd(0.2, momentum=0.9),
    "adam": optax.adam(0.1),
    "small steps": optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2),
    "decay": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9)),
    "clipping": optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(0.1, momentum=0.9)),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("transform", CHANGED)
def test_another_optimizer_is_told_as_such(transform):
    """The planted faults of pairing by role: what the other port lacks and its parameters depend on is a difference.

    The gradients of both train steps are proved to be the same, so it is the optimizer that differs.
    """
    form = FORMS["beside an average" if transform == "no momentum" else "deeper"]
    result = judged(linen=linen_port(optax.sgd(0.1, momentum=0.9), form), nnx=nnx_port(CHANGED[transform]))
    assert result.verdicts == {"nnx": "different"}
    assert verdict_words(result, "nnx") == "same function, different training"
    check = check_of(result)
    assert check.grade == "refuted"
    assert PROVED_NOTE in check.remarks
    assert PROVED_NOTE in {finding.note for finding in check.findings if finding.leaf == "fc/kernel"}


def spread_loss(outputs):
    """The mean square in a form that no rewrite makes of the other."""
    return outputs.var() + outputs.mean() ** 2


@pytest.mark.quick(1)
@pytest.mark.parametrize("transform", ["another momentum", "another rate", "another kind of momentum", "decay", "adam"])
def test_gradients_without_a_proof_are_measured(transform):
    momentum = optax.sgd(0.1, momentum=0.9)
    ours = haiku_port(CHANGED[transform], of=spread_loss)
    assert MEASURED_NOTE in check_of(judged(linen=linen_port(momentum), haiku=ours)).remarks


def test_small_steps_are_measured_where_they_update_parameters():
    """In the first step of a round both leave the parameters as they are, whatever their rates."""
    ours, theirs = (optax.MultiSteps(optax.sgd(rate), 2) for rate in (0.1, 0.2))
    result = judged(linen=linen_port(ours), haiku=haiku_port(theirs, of=spread_loss))
    assert MEASURED_NOTE in check_of(result).remarks


@pytest.mark.slow
def test_a_key_that_an_optimizer_keeps_is_compared():
    ours, theirs = (optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(seed)), optax.sgd(0.1)) for seed in (3, 4))
    result = judged(linen=linen_port(ours), nnx=nnx_port(theirs))
    assert result.verdicts == {"nnx": "different"}
    refuted = {finding.output.text for finding in check_of(result).findings if finding.grade == "refuted"}
    assert {"fc/kernel", "opt_state/rng_key"} <= refuted


def test_another_form_of_the_gradients_is_the_same():
    momentum = optax.sgd(0.1, momentum=0.9)
    result = judged(linen=linen_port(momentum), haiku=haiku_port(momentum, of=spread_loss))
    assert result.verdicts == {"haiku": "same"}
    assert check_of(result).remarks == ()


OTHER_GRADIENTS = {
    "twice the loss": lambda outputs: 2 * loss(outputs),
    "another loss": lambda outputs: abs(outputs).mean(),
    "a sum": lambda outputs: (outputs**2).sum(),
    "half of the outputs": lambda outputs: loss(outputs[:, :1]),
    "a shifted target": lambda outputs: loss(outputs - 1.0),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("change", OTHER_GRADIENTS)
def test_other_gradients_are_not_the_optimizers_fault(change):
    tx = optax.sgd(0.1, momentum=0.9)
    result = judged(linen=linen_port(tx), haiku=haiku_port(tx, of=OTHER_GRADIENTS[change]))
    assert result.verdicts == {"haiku": "different"}
    assert check_of(result).remarks == ()


ONE_SIDED = [(library, first) for library in PORTS for first in (True, False)]


@pytest.mark.quick(1)
@pytest.mark.parametrize(("library", "first"), ONE_SIDED)
def test_a_step_that_only_one_port_has_is_not_compared(library, first):
    """In every library, as the reference and as the candidate: never a difference, never a silent pass."""
    other = "linen" if library == "nnx" else "nnx"
    models = {library: PORTS[library](optax.adam(0.1)), other: PORTS[other](None)}
    result = judged(**(models if first else dict(reversed(models.items()))))
    assert set(result.verdicts.values()) == {"inconclusive"}
    check = check_of(result)
    assert check.grade == "not run"
    said = f"training is not compared: only {library} has a train step of its own. Give {other} one, too."
    assert check.summary == said
    assert said in summarise_run([result])[1]
    assert all(finding.grade in EQUAL_GRADES for finding in check.findings if finding.output is not None)
    assert check.remarks[0].startswith("both ports are trained with the default step, optax.sgd(0.1)")


def test_proofs_alone_say_that_a_step_is_one_sided_too():
    result = judged(prove_only=True, linen=linen_port(optax.adam(0.1)), nnx=nnx_port(None))
    assert result.verdicts == {"nnx": "inconclusive"}
    assert check_of(result).summary.startswith("training is not compared: only linen has a train step")


def test_of_three_ports_the_two_with_steps_are_compared():
    result = judged(
        linen=linen_port(optax.adam(0.1)), haiku=haiku_port(optax.adam(0.1), FORMS["deeper"]), nnx=nnx_port(None)
    )
    assert result.verdicts == {"haiku": "same", "nnx": "inconclusive"}
    (lone,) = [check.findings for check in result.checks if (check.check, check.candidate) == ("train", "nnx")]
    assert [finding.place for finding in lone] == ["train step"]


def test_a_one_sided_step_hides_no_other_difference():
    """Both are trained with the default step, in which a layer that is not trained shows."""

    def stopped(rngs):
        import jax

        net = nnx_port(None)(rngs)

        class Stopped(type(net)):
            def __call__(self, x):
                return jax.lax.stop_gradient(self.fc(x)) + 0 * self.fc(x)

        return Stopped()

    result = judged(linen=linen_port(optax.adam(0.1)), nnx=stopped)
    assert result.verdicts == {"nnx": "different"}
    assert check_of(result).grade == "refuted"


def test_the_default_step_is_said_and_own_steps_are_not():
    (remark,) = check_of(judged(linen=linen_port(None), nnx=nnx_port(None))).remarks
    assert remark == "both ports are trained with the default step, optax.sgd(0.1) on the mean square of the outputs"
    own = replace(
        case_of(linen=linen_port(None), nnx=nnx_port(None)),
        optimizer=lambda: optax.adam(0.1),
        loss=lambda outputs, _: (outputs**2).sum(),
    )
    (remark,) = check_of(run_case(LoadedCase("own", "", own))).remarks
    assert remark == "both ports are trained with the default step, the case's optimizer on the case's loss"
