"""Is ω̂ where training would stop?"""

from __future__ import annotations

from .check import Check, at_most, figure, worst
from .subject import Subject

# fit itself warns above half; of a tenth, a hundredth of a task gradient's squared length is common to all tasks.
NORM = (0.1, 0.5)
# Of random signs half would change: a quarter is half-way to chance.
SIGNS = (0.05, 0.25)


def stationarity(subject: Subject) -> Check:
    """‖∇L(ω̂)‖, and what is left to gain: influence is the derivative of a minimiser in a task's weight.

    Graded by the worst of three:

    gradient  ‖∇L‖ / median ‖∇L_t‖: good to 0.1, doubtful to 0.5, from where `fit` warns
    gain      ½∇LᵀH⁺∇L, the decrease that the Newton step predicts: its size is good up to the standard error of L over
              the tasks, which then cannot tell ω̂ from the minimiser; doubtful up to the standard deviation of L_t
    signs     the Newton step that is left adds −∇L_iᵀH⁺∇L to every score of test task i. The share of scores whose
              sign is another without it: good to 5%, doubtful to 25%, half-way to chance. Ranks do not change
    """
    norm, typical = subject.report["gradient_norm"], subject.report["median_task_gradient_norm"]
    ratio = norm / typical if typical else float("nan")
    gain = 0.5 * float(subject.pull @ subject.newton_step)
    losses = subject.losses
    spread = float(losses.std()) if len(losses) > 1 else float("nan")
    error = spread / len(losses) ** 0.5
    common = (subject.solutions @ subject.pull).neg().cpu()[:, None]
    changed = float((subject.values.sign() != (subject.values - common).sign()).double().mean())
    grade = worst([at_most(ratio, *NORM), at_most(abs(gain), error, spread), at_most(changed, *SIGNS)])
    return Check(
        "stationarity",
        grade,
        f"‖∇L‖ is {figure(ratio)} of a task’s gradient norm. The Newton step that is left would change L by "
        f"{figure(-gain)}, where L is known to ±{figure(error)} and tasks spread by {figure(spread)}; without its "
        f"share in the scores {changed:.0%} of their signs would be others.",
        {
            "gradient_norm": norm,
            "median_task_gradient_norm": typical,
            "ratio": ratio,
            "predicted_decrease": gain,
            "standard_error_of_loss": error,
            "spread_of_losses": spread,
            "signs_changed": changed,
        },
        "train further, with a learning rate that goes to zero, and with weight decay",
    )
