"""A chess puzzle -> a position, the solution's move and a wrong one; python-chess knows the rules.

A row is a FEN, moves in UCI and perhaps a rating, as Lichess publishes them: the first move is the
opponent's and is played before the question. Only the solver's first move is asked: splits are
disjoint by prompt, so later positions of a puzzle would end up beside its first in other splits.

Templates may show {fen}, {start} and {moves} (the row's position, and what was played since) and
{board} (the position in words); of an answer, {answer} is the move in UCI and {words} the same in
the board's words. The words are those of the side to move: turned so that it is White.
"""

from collections.abc import Mapping

import chess

from configs.schema import DataConfig
from data.read.fields import Row, filled, text
from data.read.messages import BadRow
from data.records import Message
from src.common.hashing import content_hash

VALUES = {chess.PAWN: 1, chess.KNIGHT: 3, chess.BISHOP: 3, chess.ROOK: 5, chess.QUEEN: 9}


def puzzle_parts(row: Row, config: DataConfig) -> tuple[list[Message], list[str], list[float],
                                                        list[float]]:
    """Prompt, the two moves with the solution first, their values, and no scores.

    Raises:
        BadRow: a position or move that the rules forbid, no solution, or no other move.
    """
    line = solution_line(row, config)
    board, solution = line[0]
    wrong = wrong_move(board, solution, config.wrong_move)
    prompt = [{"role": "user", "content": prompt_of(board, config)}]
    return prompt, [answer_of(board, move, config) for move in (solution, wrong)], [1.0, 0.0], []


def solution_line(row: Row, config: DataConfig) -> list[tuple[chess.Board, chess.Move]]:
    """Every position from the question on, with the move that the solution makes in it: the
    solver's, the reply, the solver's, ... Boards remember the moves played since the row's FEN."""
    try:
        board = chess.Board(text(row, "fen", config.keys))
    except ValueError as error:
        raise BadRow("not a FEN") from error
    if not board.is_valid():
        raise BadRow("illegal position")
    line = []
    for written in text(row, "moves", config.keys).split():
        try:
            move = board.parse_uci(written)
        except ValueError as error:
            raise BadRow("illegal move") from error
        if not move:  # UCI's null move, 0000
            raise BadRow("illegal move")
        line.append((board.copy(), move))
        board.push(move)
    if len(line) < 2:
        raise BadRow("no solution move")
    return line[1:]


def wrong_move(board: chess.Board, solution: chess.Move, kind: str) -> chess.Move:
    """A legal move that is not the solution, fixed by the position; never one that mates.

    Args:
        kind: `random`, or `best_capture` for one that takes the most valuable piece.
    """
    fen = board.fen()
    others = sorted((move for move in board.legal_moves if move != solution),
                    key=lambda move: content_hash([fen, move.uci()]))
    if kind == "best_capture":
        others.sort(key=lambda move: captured_value(board, move), reverse=True)
    wrong = next((move for move in others if not _mates(board, move)), None)
    if wrong is None:
        raise BadRow("no wrong move")
    return wrong


def captured_value(board: chess.Board, move: chess.Move) -> int:
    """What the piece is worth that `move` takes, in pawns; 0 where it takes none."""
    if board.is_en_passant(move):
        return VALUES[chess.PAWN]
    return VALUES.get(board.piece_type_at(move.to_square), 0)


def prompt_of(board: chess.Board, config: DataConfig) -> str:
    """What a prompt says about a position; the FEN where the config has no template."""
    fields: Mapping[str, str] = {
        "fen": board.fen(), "start": board.root().fen(),
        "moves": " ".join(move.uci() for move in board.move_stack), "board": board_words(board)}
    return filled(config.template.get("prompt", "{fen}"), fields)


def answer_of(board: chess.Board, move: chess.Move, config: DataConfig) -> str:
    """What an answer says about a move; UCI where the config has no template."""
    return filled(config.template.get("answer", "{answer}"), {"words": move_words(board, move)},
                  move.uci())


def board_words(board: chess.Board) -> str:
    """A word for every piece (its FEN letter and its square) from a8 to h1, then the rights to
    castle and the en passant square as a FEN has them, all as if White were to move."""
    board = board if board.turn == chess.WHITE else board.mirror()
    castling, en_passant = board.fen().split()[2:4]
    pieces = [_word(board, square) for square in chess.SQUARES_180 if board.piece_at(square)]
    return " ".join([*pieces, castling, en_passant])


def move_words(board: chess.Board, move: chess.Move) -> str:
    """The piece that moves, as the board says it, and the square it moves to, or the piece that it
    takes there: `Re6 e7`, `Re6 pe7`. Then the letter of what a pawn becomes."""
    squares = [move.from_square, move.to_square]
    if board.turn == chess.BLACK:
        board, squares = board.mirror(), [chess.square_mirror(square) for square in squares]
    promotion = [chess.piece_symbol(move.promotion)] if move.promotion else []
    return " ".join([*(_word(board, square) for square in squares), *promotion])


def _word(board: chess.Board, square: chess.Square) -> str:
    piece = board.piece_at(square)
    return f"{piece.symbol() if piece else ''}{chess.square_name(square)}"


def _mates(board: chess.Board, move: chess.Move) -> bool:
    board.push(move)
    mates = board.is_checkmate()
    board.pop()
    return mates
