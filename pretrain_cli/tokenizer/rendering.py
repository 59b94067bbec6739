"""Renders a chat template in a process of its own: a template is a program, which may loop or ask for all memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pretrain_cli.bounded import START_S, BoundedProcess, bound_memory, bound_time, questions
from pretrain_cli.errors import ModelError, first_line

RENDER_S = 20.0
MOST_BYTES = 1_000_000_000
"""Memory of a rendering, beyond what the libraries take."""
MOST_CHARACTERS = 10_000_000
MOST_CPU_S = 120
"""After which the process ends by itself, where the one that asks was killed."""


class Renderer:
    """A process that renders one template. It ends with this one, or when nobody needs it any more."""

    def __init__(self, template: str, tokens: Mapping[str, str]) -> None:
        self._process = BoundedProcess(__name__)
        self.close = self._process.close
        if self._process.ask({"template": template, "tokens": dict(tokens)}, patience_s=START_S) is None:
            raise _refusal("the process that renders it doesn't start")

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What the template makes of ``messages``.

        Raises:
            ModelError: it is damaged, doesn't take them, or needs too much time, memory or text.
        """
        answer = self._process.ask({"messages": [dict(message) for message in messages]}, patience_s=RENDER_S)
        if answer is None:
            raise _refusal(f"it takes more than {RENDER_S:.0f} s, or more memory than {MOST_BYTES // 10**9} GB")
        if "error" in answer[0]:
            raise _refusal(answer[0]["error"])
        return str(answer[0]["text"])


def _refusal(reason: str) -> ModelError:
    return ModelError(f"The model's chat template can't be used: {reason}.", "Leave out --chat, or use another model.")


def _serve() -> None:
    """The process itself: reads the template and its tokens, then one conversation after the other."""
    from transformers.utils.chat_template_utils import render_jinja_template

    asked = questions()
    first, _, reply = next(asked)
    bound_memory(MOST_BYTES)
    bound_time(MOST_CPU_S)
    reply({})
    for question, _, reply in asked:
        try:
            rendered, _ = render_jinja_template(
                [question["messages"]], chat_template=first["template"], add_generation_prompt=True, **first["tokens"]
            )
            long = len(rendered[0]) > MOST_CHARACTERS
            reply({"error": f"it writes over {MOST_CHARACTERS:,} characters"} if long else {"text": rendered[0]})
        except Exception as error:  # a template raises what it likes
            reply({"error": first_line(error)})


if __name__ == "__main__":
    _serve()
