"""The description of each setting: the text below its key in the source.

Only a command that shows the texts reads the source for them; pydantic would at every start.
"""

import ast
import inspect
from itertools import pairwise

from pydantic import BaseModel


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each key of a table, also of inherited keys."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        found |= descriptions_in(each)
    return found


def descriptions_in(model: type) -> dict[str, str]:
    """Return the descriptions of the keys that one class defines itself."""
    found: dict[str, str] = {}
    (tree,) = ast.parse(inspect.getsource(model)).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for statement, below in pairwise(body):
        match statement, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as text)),
            ):
                found[name] = inspect.cleandoc(text)
            case _:
                pass
    return found
