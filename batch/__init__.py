"""Questions about a library of videos, resumable, here or on Ray; `Predictor` is the class for Ray and Triton."""

from storm_edge.batch.predictor import Predictor

__all__ = ["Predictor"]
