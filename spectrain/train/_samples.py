"""Text written by the model, for people to read."""

import torch

from spectrain import data, nn


def prompts(validation_text: str) -> list[str]:
    """Nothing at all, and the first line with some letters of the held-out text."""
    lines = (line.rstrip() for line in validation_text.splitlines())
    opening = next((line for line in lines if sum(c.isalpha() for c in line) >= 8), "")
    return ["", *([opening[:80] + "\n"] if opening else [])]


def write(
    model: nn.LanguageModel,
    tokenizer: data.Tokenizer,
    prompt: str,
    *,
    tokens: int,
    context: int,
    generator: torch.Generator,
    temperature: float = 0.8,
    top_k: int | None = 50,
) -> str:
    """``prompt`` and its continuation. Leaves the model's mode as it was."""
    ids = [tokenizer.end_of_text, *tokenizer.encode(prompt).tolist()]
    device = model.embedding.weight.device
    was_training = model.training
    model.eval()
    out = nn.generate(
        model,
        torch.tensor([ids], dtype=torch.long, device=device),
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        context=context,
        generator=generator,
    )
    model.train(was_training)
    return tokenizer.decode(out[0, 1:].tolist())
