"""Command: put a finished reward model on the Hugging Face hub, with its model card.

    python -m src.push --model runs/demo/ceilings/demo-L8-s0-1a2b3c4d --repo OWNER/NAME --dry-run
    python -m src.push --model runs/demo/ceilings/demo-L8-s0-1a2b3c4d --repo OWNER/NAME --private

Weights (safetensors), config, tokenizer and card go up, and the adapter that was merged into the
weights where there is one; nothing else of the run's folder. Log in before with `hf auth login` and
a token that may write. The card has the accuracy once eval.py has scored the experiment.
HF_ENDPOINT names another hub.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from src.common.arguments import Parser
from src.common.errors import UserError, run_command

PUBLISHED = ("*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*",
             "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
             "chat_template.jinja", "adapter/adapter_model.safetensors",
             "adapter/adapter_config.json")
"""Paths in a run's folder."""
PLACE = 'from_pretrained(".")'


def published_files(folder: Path) -> list[Path]:
    """What of a run's folder is for others: all but the card."""
    return sorted({file for pattern in PUBLISHED for file in folder.glob(pattern)})


def card_for(folder: Path, repo: str) -> str:
    """The run's model card, as it reads on the hub."""
    from src.runs.folders import CARD

    return (folder / CARD).read_text(encoding="utf-8").replace(PLACE, f'from_pretrained("{repo}")')


def check(folder: Path, repo: str) -> None:
    """UserError unless `folder` is a finished run and `repo` can be a repository's name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    from src.runs.folders import read_run
    from src.runs.freed import require_weights

    if not folder.is_dir() or read_run(folder) is None:
        raise UserError(f"{folder}: not the folder of a run: expected one like "
                        "runs/EXPERIMENT/ceilings/NAME")
    require_weights(folder)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--repo {repo}: {error}") from None
    if "/" not in repo:
        raise UserError(f"--repo {repo}: expected OWNER/NAME, the owner being you or an "
                        "organisation of yours")


def push(folder: Path, repo: str, private: bool) -> str:
    """Upload the run in one commit, made if need be; returns the page.

    Raises:
        UserError: no login, no network, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    from model.hub.errors import hub_errors
    from src.runs.folders import CARD

    api = HfApi()
    with hub_errors(repo):
        try:
            api.whoami()
        except LocalTokenNotFoundError:
            raise UserError("no login: `hf auth login` with a token that may write, or set "
                            "HF_TOKEN") from None
        files = [CommitOperationAdd(file.relative_to(folder).as_posix(), file)
                 for file in published_files(folder)]
        files.append(CommitOperationAdd(CARD, card_for(folder, repo).encode()))
        api.create_repo(repo, private=private, exist_ok=True)
        api.create_commit(repo, files, commit_message=f"Reward model {folder.resolve().name}")
    return f"{api.endpoint}/{repo}"


def main(arguments: list[str] | None = None) -> None:
    """Check, show, upload."""
    about, more = __doc__.split("\n\n", 1)
    parser = Parser(prog="python -m src.push", description=about, epilog=more,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the folder of a finished run")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="where on the hub")
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--dry-run", action="store_true", help="show what would go up, and stop")
    args = parser.parse_args(arguments)
    from src.runs.cards import NOT_SCORED
    from src.runs.folders import CARD

    check(args.model, args.repo)
    files = published_files(args.model)
    for file in files:
        print(f"{file.stat().st_size / 1e6:12,.2f} MB  {file.relative_to(args.model)}")
    print(f"{len(card_for(args.model, args.repo)) / 1e6:12,.2f} MB  {CARD}", flush=True)
    if NOT_SCORED in card_for(args.model, args.repo):
        print("! the card has no accuracy: score the experiment with eval.py first", flush=True)
    if not args.dry_run:
        print(f"pushed to {push(args.model, args.repo, args.private)}")


if __name__ == "__main__":
    run_command(main)
