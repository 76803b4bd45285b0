"""Glossary of the page, one sentence per term; shown at its end and as tooltips."""

from __future__ import annotations

WORDS: dict[str, str] = {
    "teacher, student": "the big model, and the smaller one that learns from its predictions",
    "accuracy": "share of texts with the correct predicted label",
    "macro F1": "unweighted mean of the classes' F1; the F1 of a class is the harmonic mean of its "
    "precision (share of its predictions that are correct) and recall (share of its texts that are "
    "found)",
    "confidence": "probability that a model gives its own prediction",
    "calibration error": "expected calibration error (ECE): difference between confidence and "
    "accuracy, averaged over texts in 15 bins of confidence; 0 is perfect",
    "point": "a hundredth of a metric: 83.1 % is 0.4 points below 83.5 %",
    "interval": "95 % confidence interval, by bootstrap: the measured texts are resampled",
    "not significant": "the 95 % interval of a paired difference contains zero: "
    "these texts cannot tell the two models apart; otherwise the difference is real",
    "pairs": "two runs with different methods and the same seed; the common effect of the seed "
    "cancels in their difference",
    "p of signs": "p value of a sign-flip test: share of all sign patterns of the differences "
    "whose mean is at least as far from 0; at least 2/2ⁿ with n seeds",
    "latency": "milliseconds of one forward pass; p50 is the median, "
    "95 of 100 passes take no longer than p95",
    "prefill": "processing a text before the first token is generated: an encoder's pass, or a "
    "decoder's over the whole prompt",
    "decode step": "generating one token",
    "throughput": "texts per second at the given batch size",
    "size": "weights and graph files on disk, without the tokenizer, in MiB (1,048,576 bytes)",
    "parameters": "number of weights of a model, shared ones counted once",
    "FLOPs": "floating-point operations of one forward pass; a multiply-add counts as two",
    "peak memory": "peak resident memory of a process that only runs the model",
    "int8": "weights and activations stored and multiplied as 8-bit integers (also W8A8)",
    "simulated": "a float model rounded to the integer grid: it computes what the deployed model "
    "computes, up to rounding; slow",
    "deployed": "an exported model, run in integers by OpenVINO or ONNX Runtime",
    "distinct n-grams": "number of distinct n-grams of a sample of texts over the number of all "
    "its n-grams; low if the texts repeat themselves",
    "site": "a place in the model where an activation is quantized",
    "SQNR": "signal-to-quantization-noise ratio in dB, 20·log10(‖x‖ / ‖x − y‖); one bit is about 6 "
    "dB",
    "calibration": "texts that set the ranges of the quantizers",
    "parity": "agreement of the deployed model's outputs with the simulated one's",
    "fusion audit": "which matrix products the runtime computes in integers, and why not the "
    "others",
    "vectors": "embeddings of texts; similar texts have a cosine near 1",
    "gate": "a condition of the recipe on a metric; if it is missed, the run ends with exit code 6",
    "zero-shot": "prompted without examples and without training on the task",
    "chance": "accuracy of guessing; a model whose interval contains it is at chance: these rows "
    "do not show that it can do the task",
    "score": "how much more likely a chunk is under the teacher than under the reference: the "
    "difference of their mean log-probabilities, in nats per token",
    "Vendi score": "effective number of distinct items in a sample: the exponential of the entropy "
    "of the eigenvalues of its similarity matrix",
    "near duplicate": "a chunk that shares most of its word 5-grams with an earlier one",
    "failed run": "one of several seeds whose final loss is above the others': the median excess "
    "in its last quarter is over 6 robust standard deviations of the runs and over 5 % of the "
    "loss's decrease",
    "key": "hash of a step's settings, inputs and code version; a step with the same key is reused",
}
"""Word → meaning, in the order of the page."""


def word_id(word: str) -> str:
    """The anchor of a word on the page.

    Example:
        >>> word_id("peak memory")
        'word-peak-memory'
    """
    return "word-" + "".join(letter if letter.isalnum() else "-" for letter in word.lower())
