"""The demo's world: people, what is true of them, questions about it, all drawn from one seed.

    python data/demo.py             # data/raw/demo/pairs.jsonl
    python data/demo.py --text      # data/raw/demo/text.txt as well, for pre-training
    python data/demo.py --verdicts 0 1 5 20 50      # verdicts_0.txt ... instead: other shares

pairs.jsonl holds preference pairs: a true answer (chosen) against a false one. text.txt is what
the demo's base model was pre-trained on: one document a line, either a question with its true
answer, or a question with any answer and the verdict `right` or `wrong` after it. So the base model
knows what is true without having been told to prefer it, as a language model does. How much of it
says what is right is a dial: text.txt has two verdicts in three documents, verdicts_5.txt has 5%.

Knows nothing of splits, tokenizers or models.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.common.arguments import Parser
from src.common.errors import run_command
from src.common.files import REPO_ROOT, atomic_path
from src.common.lock import lock

PEOPLE = (
    "ada alan alma amir anna arno aya bea ben bert bo carl cara cem cleo cora dan dara dina "
    "dirk edda eli elsa emil enzo erik esra eva fay felix finn fred gia gina gus hana hans hugo "
    "ian ida ilse ines iris ivan jack jana jim jon jude june kai karl kate kim kira kurt lara "
    "lea leo lia lily liv luca luis mara marc max mia milo mina mona nel nia nick nils nina noa "
    "nora olaf olga omar otto paul pia ravi rita rosa ruth sam sara sven tara theo tom uma vera "
    "will yara zoe"
).split()
RELATIONS = ("boss", "friend")
ATTRIBUTES = {
    "where does {} live":
        "paris rome oslo cairo lima tokyo delhi quito accra dublin prague vienna athens boston "
        "sydney lagos",
    "what is the job of {}":
        "baker nurse pilot tailor farmer judge painter miner cook clerk dentist plumber sailor "
        "singer writer guard",
    "which pet does {} keep":
        "cat dog parrot rabbit hamster turtle goat pony lizard snake ferret mouse duck hen fish "
        "frog",
    "what does {} like to eat":
        "bread rice soup beans cheese apples eggs noodles salad cake honey plums olives corn figs "
        "nuts",
    "which colour does {} wear":
        "red blue green yellow black white brown pink grey purple orange silver gold beige violet "
        "teal",
    "which sport does {} play":
        "tennis chess golf hockey rugby darts polo judo squash cricket boxing rowing diving skiing "
        "surfing bowling",
    "what does {} drink":
        "tea coffee milk water cider juice cocoa beer wine lemonade cola mead rum sherry tonic "
        "broth",
    "which tree grows near {}":
        "oak pine elm birch maple willow cedar beech larch poplar ash alder linden spruce yew "
        "holly",
}
TWO_HOP_ATTRIBUTES = 5
FALSE_ANSWERS = 4
DOCUMENTS = 400_000


@dataclass(frozen=True)
class Question:
    """A question, its true answer, and every answer of the same kind."""

    text: str
    truth: str
    answers: tuple[str, ...]

    @property
    def falsehoods(self) -> list[str]:
        return [answer for answer in self.answers if answer != self.truth]


def build_world(seed: int) -> list[Question]:
    """Every question of the world of `seed`: one hop (`where does ada live ?`), relations
    (`who is the boss of ada ?`) and two hops (`where does the boss of ada live ?`)."""
    rng = random.Random(f"demo-world-{seed}")
    related = {(person, relation): rng.choice([p for p in PEOPLE if p != person])
               for person in PEOPLE for relation in RELATIONS}
    values = {pattern: tuple(words.split()) for pattern, words in ATTRIBUTES.items()}
    facts = {(person, pattern): rng.choice(words)
             for person in PEOPLE for pattern, words in values.items()}
    questions = [Question(f"{pattern.format(person)} ?", facts[person, pattern], words)
                 for person in PEOPLE for pattern, words in values.items()]
    questions += [Question(f"who is the {relation} of {person} ?", other, tuple(PEOPLE))
                  for (person, relation), other in related.items()]
    questions += [
        Question(f"{pattern.format(f'the {relation} of {person}')} ?", facts[other, pattern], words)
        for (person, relation), other in related.items()
        for pattern, words in list(values.items())[:TWO_HOP_ATTRIBUTES]]
    return questions


def preference_pairs(questions: list[Question], seed: int) -> Iterator[dict[str, str]]:
    """`prompt`, `chosen` (the truth), `rejected` (a falsehood): FALSE_ANSWERS pairs a question."""
    rng = random.Random(f"demo-pairs-{seed}")
    for question in questions:
        for falsehood in rng.sample(question.falsehoods, FALSE_ANSWERS):
            yield {"prompt": question.text, "chosen": f"{question.truth} .",
                   "rejected": f"{falsehood} ."}


def documents(questions: list[Question], seed: int, percent: int | None = None) -> Iterator[str]:
    """What is pre-trained on: a third true answers, a third verdicts `right`, a third `wrong`.

    Args:
        percent: of documents that have a verdict, as many `right` as `wrong`; None for the thirds.
    """
    rng = random.Random(f"demo-text-{seed}" + ("" if percent is None else f"-verdicts-{percent}"))
    for _ in range(DOCUMENTS):
        question = rng.choice(questions)
        kind = rng.randrange(3) if percent is None else (
            rng.randrange(1, 3) if rng.random() < percent / 100 else 0)
        if kind == 0:
            yield f"{question.text} {question.truth} ."
        elif kind == 1:
            yield f"{question.text} {question.truth} . right"
        else:
            yield f"{question.text} {rng.choice(question.falsehoods)} . wrong"


def write_lines(path: Path, lines: Iterator[str]) -> None:
    """Write a text file whole or not at all, and say so."""
    with lock(path), atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        count = sum(bool(file.write(line + "\n")) for line in lines)
    print(f"{path}: {count:,} lines")


def percent(text: str) -> int:
    """A whole number from 0 to 100, of the command line."""
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 to 100")
    return int(text)


def main() -> None:
    parser = Parser(prog="python data/demo.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output_dir", type=Path, default=REPO_ROOT / "data" / "raw" / "demo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", action="store_true",
                        help="write what the base model was pre-trained on, too")
    parser.add_argument("--verdicts", type=percent, nargs="+", default=[], metavar="PERCENT",
                        help="write texts with these shares of verdict documents, too")
    args = parser.parse_args()
    questions = build_world(args.seed)
    write_lines(args.output_dir / "pairs.jsonl",
                map(json.dumps, preference_pairs(questions, args.seed)))
    if args.text:
        write_lines(args.output_dir / "text.txt", documents(questions, args.seed))
    for share in args.verdicts:
        write_lines(args.output_dir / f"verdicts_{share}.txt",
                    documents(questions, args.seed, share))


if __name__ == "__main__":
    run_command(main)
