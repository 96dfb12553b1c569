"""One policy from its RunConfig to a finished run folder, in one process.

The folder is a plain language model that `AutoModelForCausalLM` loads. A stopped run starts anew:
nothing of it is kept but a finished folder.
"""

from pathlib import Path

from transformers import PreTrainedModel

from configs.run import RunConfig
from data.tokens.formatting import answer_end
from model.policy_model import check_saved, load_language_model
from src.common.files import write_json, write_text
from src.common.hashing import commit
from src.common.memory import peak_memory_mib, reset_peak
from src.runs.bases import BaseModel
from src.runs.folders import mark_done, require_finished
from src.runs.plan import Plan
from src.runs.policy_card import write_policy_card
from src.training.policy.raft import best_answers
from src.training.policy.rows import rows_of_split
from src.training.policy.tune import tune
from src.training.train_run import base_facts, open_folder


def train_policy(run: RunConfig, plan: Plan, runs_dir: Path, folder: Path) -> None:
    """Train `run` into `folder` and mark it done.

    Raises:
        ReloadError: what was saved is not what was trained; the folder gets no DONE.
        UserError: a run that it needs is not finished, or has no weights any more.
    """
    reset_peak()
    open_folder(run, folder)
    base = plan.bases[run.model]
    begins_at = _begins_at(run, plan, runs_dir)
    model = load_language_model(begins_at, None if run.earlier else run.kept)
    rows = (best_answers(run, plan, runs_dir, model, begins_at) if run.policy.step == "raft"
            else rows_of_split(run, plan, runs_dir))
    tuned, log, measured = tune(run, plan.experiment.runtime, rows.rows, model, base.tokenizer,
                                folder)
    _save(tuned, base, folder)
    write_text(folder / "log.jsonl", log)
    write_json(folder / "manifest.json", {
        "identity": run.identity, "name": run.display_name, "rows": len(rows.rows),
        **({"left_out": rows.left_out} if rows.left_out else {}), **measured,
        "peak_memory_mib": peak_memory_mib(), "commit": commit(),
        **base_facts(run, plan)})
    write_policy_card(folder)
    mark_done(folder, run.identity)


def _save(policy: PreTrainedModel, base: BaseModel, folder: Path) -> None:
    """Weights, config, tokenizer, and what the library needs to know to answer with it."""
    policy.config.pad_token_id = policy.generation_config.pad_token_id = base.tokenizer.pad_token_id
    policy.generation_config.eos_token_id = answer_end(base.tokenizer)
    policy.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    check_saved(policy, folder)


def _begins_at(run: RunConfig, plan: Plan, runs_dir: Path) -> Path:
    if not run.earlier:
        return plan.bases[run.model].path
    earlier = next(other for other in plan.policies if other.identity == run.earlier)
    return require_finished(runs_dir, earlier.stage, earlier.identity, earlier.display_name,
                            f"run ./dpo.sh {run.experiment} again")
