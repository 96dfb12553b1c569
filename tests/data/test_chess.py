"""Chess puzzles: the solver's first move against a legal move that is no solution."""

import math
from collections import Counter

import chess
import pytest

from configs.schema import DataConfig
from data.read.chess_puzzles import (
    board_words,
    captured_value,
    move_words,
    puzzle_parts,
    solution_line,
    wrong_move,
)
from data.read.messages import BadRow

START = chess.STARTING_FEN
BACK_RANK = "6k1/5ppp/8/8/8/8/5PPP/R5K1 b - - 0 1"
TWO_MATES = "6k1/5ppp/8/1p6/8/8/5PPP/R2R2K1 b - - 0 1"
"""After b5b4 both a1a8 and d1d8 mate: nothing of Black's guards the last rank."""
CAPTURES = "4k3/8/8/1p3q2/8/3B3n/6P1/4K3 w - - 0 1"
"""White's bishop takes a queen or a pawn, its pawn a knight."""


def config(**changes) -> DataConfig:
    return DataConfig(name="t", path="a.csv", form="chess", **changes)


def parts(fen, moves, **changes):
    """Prompt text, solution, wrong move of a row."""
    prompt, texts, values, scores = puzzle_parts({"fen": fen, "moves": moves}, config(**changes))
    assert (values, scores) == ([1.0, 0.0], []) and len(prompt) == 1
    return prompt[0]["content"], *texts


def test_the_question_is_the_position_after_the_opponent_s_move():
    prompt, solution, wrong = parts(START, "e2e4 c7c5 g1f3")
    assert prompt == "rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR b KQkq - 0 1"
    assert solution == "c7c5"
    replies = chess.Board(prompt).legal_moves
    assert chess.Move.from_uci(wrong) in replies and wrong != solution


def test_the_line_goes_on_with_the_replies():
    line = solution_line({"fen": START, "moves": "e2e4 c7c5 g1f3"}, config())
    assert [move.uci() for _, move in line] == ["c7c5", "g1f3"]
    assert [board.turn for board, _ in line] == [chess.BLACK, chess.WHITE]
    assert line[0][0].piece_at(chess.C7) is not None  # boards are as they were before the move


def test_templates_choose_between_position_moves_and_words():
    template = {"prompt": "{start} moves {moves}", "answer": "best {answer}"}
    assert parts(START, "e2e4 c7c5", template=template)[:2] == (f"{START} moves e2e4", "best c7c5")
    template = {"prompt": "{board} move:", "answer": "{words}"}
    prompt, solution, _ = parts(BACK_RANK, "h7h6 a1a8", template=template)
    assert prompt == "kg8 pf7 pg7 ph6 Pf2 Pg2 Ph2 Ra1 Kg1 - - move:"
    assert solution == "Ra1 a8"


def test_words_name_what_is_taken_the_rights_and_what_a_pawn_becomes():
    board = chess.Board("3r3k/4P3/8/2pP4/8/8/8/R3K3 w Q c6 0 2")
    assert board_words(board) == "rd8 kh8 Pe7 pc5 Pd5 Ra1 Ke1 Q c6"
    words = {uci: move_words(board, chess.Move.from_uci(uci))
             for uci in ("e7d8q", "e7e8n", "d5c6", "e1c1")}
    assert words == {"e7d8q": "Pe7 rd8 q", "e7e8n": "Pe7 e8 n", "d5c6": "Pd5 c6", "e1c1": "Ke1 c1"}


def test_words_of_the_same_position_for_the_other_side_are_the_same():
    board = chess.Board("3r3k/4P3/8/2pP4/8/8/8/R3K3 w Q c6 0 2")
    turned = chess.Board("r3k3/8/8/8/2Pp4/8/4p3/3R3K b q c3 0 2")  # written out by hand
    assert board_words(turned) == board_words(board)
    for uci, other in (("e7d8q", "e2d1q"), ("d5c6", "d4c3"), ("a1a7", "a8a2")):
        assert move_words(turned, chess.Move.from_uci(other)) == move_words(
            board, chess.Move.from_uci(uci))


def test_the_wrong_move_is_legal_fixed_by_the_position_and_spread_over_all_others():
    counts = Counter()
    for clock in range(400):
        board = chess.Board(START.replace("0 1", f"{clock % 50} {clock + 50}"))
        solution = chess.Move.from_uci("e2e4")
        wrong = wrong_move(board, solution, "random")
        assert wrong == wrong_move(board, solution, "random")
        counts[wrong.uci()] += 1
    others = {move.uci() for move in chess.Board().legal_moves} - {"e2e4"}
    assert set(counts) == others  # 19 moves; one is never drawn with probability 19 * e^-21
    mean = 400 / len(others)
    assert max(counts.values()) < mean + 5 * math.sqrt(mean)


def test_the_best_capture_takes_the_most_valuable_piece_that_the_solution_leaves():
    board = chess.Board(CAPTURES)

    def wrong(solution):
        return wrong_move(board, chess.Move.from_uci(solution), "best_capture").uci()

    values = {uci: captured_value(board, chess.Move.from_uci(uci))
              for uci in ("d3f5", "g2h3", "d3b5", "e1d1")}
    assert values == {"d3f5": 9, "g2h3": 3, "d3b5": 1, "e1d1": 0}
    assert wrong("e1d1") == "d3f5"
    assert wrong("d3f5") == "g2h3"


def test_en_passant_takes_a_pawn():
    board = chess.Board("4k3/8/8/2pP4/8/8/8/4K3 w - c6 0 2")
    assert captured_value(board, chess.Move.from_uci("d5c6")) == 1
    assert wrong_move(board, chess.Move.from_uci("e1e2"), "best_capture").uci() == "d5c6"


def test_without_a_capture_the_wrong_move_is_the_random_one():
    board, solution = chess.Board(), chess.Move.from_uci("e2e4")
    assert (wrong_move(board, solution, "best_capture") == wrong_move(board, solution, "random"))


@pytest.mark.parametrize("kind", ["random", "best_capture"])
def test_another_move_that_mates_is_not_wrong(kind):
    drawn = set()
    for clock in range(1, 200):  # other clocks, other draws
        fen = TWO_MATES.replace("0 1", f"0 {clock}")
        drawn.add(parts(fen, "b5b4 a1a8", wrong_move=kind)[2])
    assert drawn.isdisjoint({"a1a8", "d1d8"}) and len(drawn) > 10


ODD = {
    "no FEN": ("somewhere", "e2e4 e7e5", "not a FEN"),
    "no king": ("8/8/8/8/8/8/8/8 w - - 0 1", "e2e4 e7e5", "illegal position"),
    "illegal move": (START, "e2e5 e7e5", "illegal move"),
    "illegal reply": (START, "e2e4 e7e4", "illegal move"),
    "null move": (START, "0000 e7e5", "illegal move"),
    "no move": (START, "e2e4 castles", "illegal move"),
    "no solution": (START, "e2e4", "no solution move"),
    "one legal move": ("k7/8/3Q4/8/8/8/8/K7 w - - 0 1", "d6d7 a8b8", "no wrong move"),
    "not text": (START, 7, "wrong type of moves"),
    "missing": (None, "e2e4", "missing key fen"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_row_has_its_reason(case):
    fen, moves, reason = ODD[case]
    with pytest.raises(BadRow) as error:
        puzzle_parts({"fen": fen, "moves": moves}, config())
    assert str(error.value) == reason
