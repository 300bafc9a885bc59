"""Tests mirror the packages: runtime/bundle/engine.py is tested in tests/runtime/bundle/test_engine.py.

What is better tested with something else is listed here, with the test that covers it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = ("plugins", "runtime", "export", "calibration", "demo", "server", "batch", "cli")
COVERED_BY = {
    "batch/bundles.py": "batch/test_predictor.py",
    "batch/decoding.py": "batch/test_local.py",
    "batch/fetch.py": "batch/test_predictor.py",
    "batch/rows.py": "batch/test_store.py",
    "batch/run.py": "cli/test_batch.py",
    "batch/worker.py": "batch/test_local.py",
    "runtime/answer/answer.py": "runtime/answer/test_pipeline.py",
    "export/build/pieces.py": "runtime/answer/test_temporal.py",
    "runtime/bundle/engine_graphs.py": "runtime/answer/test_temporal.py",
    "runtime/answer/source.py": "runtime/answer/test_on_device.py",
    "runtime/answer/chunked.py": "export/passes/test_cut_temporal.py",
    "calibration/analysis.py": "calibration/test_sensitivity.py",
    "calibration/budget.py": "calibration/test_acceptance.py",
    "calibration/counting.py": "calibration/test_calibrate.py",
    "calibration/decoder.py": "calibration/test_language.py",
    "calibration/graphs.py": "calibration/test_calibrate.py",
    "calibration/losses.py": "calibration/test_awq.py",
    "calibration/methods.py": "calibration/test_thresholds.py",
    "calibration/observe.py": "calibration/test_calibrate.py",
    "calibration/plot.py": "calibration/test_sensitivity.py",
    "calibration/switched.py": "calibration/test_sensitivity.py",
    "cli/data.py": "cli/test_eval.py",
    "cli/doctor.py": "cli/test_main.py",
    "cli/options.py": "cli/test_printing.py",
    "cli/run.py": "cli/test_main.py",
    "cli/verify.py": "cli/test_main.py",
    "demo/dataset.py": "demo/test_scene.py",
    "demo/items.py": "cli/test_eval.py",
    "demo/palette.py": "demo/test_scene.py",
    "demo/questions.py": "demo/test_scene.py",
    "demo/render.py": "demo/test_scene.py",
    "demo/sheet.py": "demo/test_main.py",
    "demo/tokenizer.py": "demo/training/test_model.py",
    "demo/training/answering.py": "demo/test_measure.py",
    "demo/training/batches.py": "demo/training/test_run.py",
    "demo/training/checkpoints.py": "demo/training/test_run.py",
    "demo/training/curves.py": "demo/training/test_run.py",
    "demo/training/muon.py": "demo/training/test_run.py",
    "demo/training/plan.py": "demo/training/test_run.py",
    "demo/training/scoring.py": "demo/training/test_run.py",
    "demo/training/workers.py": "demo/training/test_run.py",
    "export/build/build.py": "cli/test_build.py",
    "export/build/prepared.py": "export/build/onnxruntime/test_cuda.py",
    "export/build/publish.py": "export/build/tensorrt/test_build.py",
    "export/build/options.py": "cli/test_build.py",
    "export/build/steps.py": "export/build/tensorrt/test_build.py",
    "export/build/prepare.py": "export/build/tensorrt/test_build.py",
    "export/build/tensorrt/callbacks.py": "export/build/tensorrt/test_compile.py",
    "export/build/tensorrt/compile_child.py": "export/build/tensorrt/test_compile.py",
    "export/build/tensorrt/compile_job.py": "export/build/tensorrt/test_compile.py",
    "export/build/goal.py": "export/build/tensorrt/test_build.py",
    "export/build/tensorrt/engines.py": "export/build/tensorrt/test_build.py",
    "export/build/tensorrt/timing.py": "export/build/tensorrt/test_build.py",
    "export/build/tensorrt/versions.py": "export/build/tensorrt/test_build.py",
    "export/build/tensorrt/profiles.py": "export/build/tensorrt/test_build.py",
    "export/build/leftovers.py": "export/build/tensorrt/test_build.py",
    "export/checkpoint/importers.py": "export/test_initialize.py",
    "export/checkpoint/shapes.py": "export/checkpoint/test_check.py",
    "export/checkpoint/shards.py": "export/checkpoint/test_weights.py",
    "export/checkpoint/state_dict.py": "export/test_initialize.py",
    "export/checkpoint/summary.py": "export/families/test_summary.py",
    "export/checkpoint/writing.py": "export/checkpoint/test_weights.py",
    "export/families/family.py": "export/families/test_recognise.py",
    "export/families/frames.py": "export/families/llava_onevision/test_family.py",
    "export/families/nvila/config.py": "export/families/nvila/test_family.py",
    "export/families/llava_onevision/authors.py": "export/families/llava_onevision/test_family.py",
    "export/families/llava_onevision/transformers.py": "export/families/llava_onevision/test_family.py",
    "export/families/sections.py": "export/families/llava_onevision/test_family.py",
    "export/families/storm/family.py": "export/families/test_recognise.py",
    "export/families/tensors.py": "export/families/test_recognise.py",
    "export/build/device_command.py": "export/build/tensorrt/test_build.py",
    "export/build/decoder_tensors.py": "export/build/tensorrt_llm/test_checkpoint.py",
    "export/build/language.py": "export/build/tensorrt_llm/test_build.py",
    "export/build/language_goal.py": "export/build/tensorrt_llm/test_build.py",
    "export/build/tensorrt_llm/config.py": "export/build/tensorrt_llm/test_checkpoint.py",
    "export/build/tensorrt_llm/ranks.py": "export/build/tensorrt_llm/test_checkpoint.py",
    "export/build/tensorrt_llm/weights.py": "export/build/tensorrt_llm/test_checkpoint.py",
    "export/network/load.py": "export/network/test_vision.py",
    "export/network/visibility.py": "export/test_initialize.py",
    "export/passes/drop_softmax_precision.py": "export/passes/test_precision.py",
    "export/passes/int4_blocks.py": "export/passes/test_block_weights.py",
    "export/passes/lower_attention.py": "export/build/tensorrt/test_build.py",
    "export/passes/name_axes.py": "export/test_export_bundle.py",
    "export/passes/narrow.py": "export/passes/test_precision.py",
    "export/passes/pin_length.py": "export/build/tensorrt/test_build.py",
    "export/passes/step.py": "export/build/test_quantized.py",
    "export/passes/strip_functions.py": "export/build/tensorrt/test_build.py",
    "export/passes/strip_metadata.py": "export/test_export_bundle.py",
    "export/passes/tensors.py": "export/passes/test_quantize.py",
    "export/passes/widen.py": "export/passes/test_precision.py",
    "export/reference/rounding.py": "export/reference/test_record.py",
    "export/rotary.py": "export/passes/test_fuse_decoder.py",
    "export/trace/dynamo.py": "export/test_export_bundle.py",
    "export/trace/embedding.py": "export/test_export_bundle.py",
    "export/trace/vision.py": "export/test_export_bundle.py",
    "plugins/causal_conv1d/op.py": "plugins/test_op_schema.py",
    "plugins/gpus.py": "runtime/machine/test_probe.py",
    "plugins/native_kernels.py": "plugins/test_cpu_kernels.py",
    "plugins/onnx_common.py": "plugins/test_onnx_export.py",
    "plugins/selective_scan/op.py": "plugins/test_op_schema.py",
    "plugins/torch_common.py": "plugins/test_onnx_export.py",
    "runtime/bundle/calibration.py": "calibration/test_calibrate.py",
    "runtime/bundle/contract.py": "runtime/bundle/test_graphs.py",
    "runtime/bundle/onnx_messages.py": "runtime/bundle/test_graphs.py",
    "runtime/bundle/records.py": "runtime/bundle/test_manifest.py",
    "runtime/config/parts.py": "runtime/config/test_schema.py",
    "runtime/config/presets.py": "runtime/config/test_schema.py",
    "runtime/errors.py": "cli/test_main.py",
    "runtime/llm/decoder.py": "runtime/llm/test_onnxruntime.py",
    "runtime/proof/uncompiled.py": "export/build/tensorrt/test_build.py",
    "runtime/llm/base.py": "runtime/llm/test_generate.py",
    "runtime/llm/sandbox.py": "runtime/llm/test_template.py",
    "runtime/llm/template_limits.py": "runtime/llm/test_template.py",
    "runtime/llm/template_child.py": "runtime/llm/test_template.py",
    "runtime/llm/language_folder.py": "export/build/tensorrt_llm/test_build.py",
    "runtime/llm/arriving.py": "runtime/llm/test_vllm.py",
    "runtime/llm/vllm_package.py": "runtime/llm/test_vllm.py",
    "runtime/llm/vllm_request.py": "runtime/llm/test_vllm.py",
    "runtime/llm/tensorrt_llm_engine.py": "runtime/llm/test_tensorrt_llm.py",
    "runtime/llm/tensorrt_llm_package.py": "runtime/llm/test_tensorrt_llm.py",
    "runtime/machine/doctor.py": "cli/test_main.py",
    "runtime/machine/hardware.py": "runtime/machine/test_targets.py",
    "runtime/machine/matrix.py": "test_package.py",
    "runtime/machine/memory.py": "runtime/bundle/test_graphs.py",
    "runtime/machine/precisions.py": "runtime/machine/test_targets.py",
    "runtime/machine/user_folders.py": "runtime/bundle/test_hashes.py",
    "runtime/plan/advice.py": "runtime/plan/test_planning.py",
    "runtime/plan/memory.py": "runtime/plan/test_planning.py",
    "runtime/proof/divergence.py": "runtime/proof/test_evaluate.py",
    "runtime/sessions/base.py": "runtime/sessions/test_contract.py",
    "runtime/answer/token_ring.py": "runtime/answer/test_watch.py",
    "runtime/video/live/base.py": "runtime/video/live/test_following.py",
    "runtime/video/live/local.py": "runtime/video/live/test_following.py",
    "runtime/video/live/source.py": "runtime/video/live/test_following.py",
    "runtime/video/live/stream.py": "runtime/video/live/test_following.py",
    "runtime/video/container.py": "runtime/video/test_search.py",
    "runtime/video/folder.py": "runtime/video/test_folders.py",
    "runtime/video/listing.py": "runtime/video/test_arrays.py",
    "runtime/video/reading.py": "runtime/video/test_files.py",
    "runtime/video/sampling.py": "runtime/video/test_arrays.py",
    "server/answering.py": "server/test_app.py",
    "server/decode_child.py": "server/test_decoder.py",
    "server/decode_job.py": "server/test_decoder.py",
    "server/errors.py": "server/test_app.py",
    "server/files.py": "server/test_uploads.py",
    "server/jobs.py": "server/test_app.py",
    "server/live_sources.py": "server/test_stream_routes.py",
    "server/metrics.py": "server/test_app.py",
    "server/questions.py": "server/test_app.py",
    "server/replies.py": "server/test_app.py",
    "server/routes.py": "server/test_app.py",
    "server/schema.py": "server/test_app.py",
    "server/streams.py": "server/test_stream_routes.py",
    "server/engine.py": "server/test_scheduler.py",
    "server/service.py": "server/test_app.py",
    "server/settings.py": "server/test_app.py",
}


def modules() -> dict[str, Path]:
    """Every module by its dotted name; a package's own file by the package's."""
    paths = [p for layer in LAYERS for p in sorted((ROOT / layer).rglob("*.py"))]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def mirror(path: Path) -> Path:
    """Where the test of a module belongs."""
    relative = path.relative_to(ROOT)
    return ROOT / "tests" / relative.parent / f"test_{relative.name}"


def uses(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports, or names in a string, as it does for a process of their own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"storm_edge(?:\.\w+)+", node.value))
    if path == ROOT / "cli" / "main.py":  # it imports a verb by its name
        found |= {f"storm_edge.{name}" for name in known if name.startswith("cli.")}
    return {name.removeprefix("storm_edge.") for name in found if name.startswith("storm_edge.")} & set(known)


def reached(test: Path, known: dict[str, Path]) -> set[str]:
    """Every module that a test comes to by itself, by its fixtures, or by what those use."""
    waiting = [test, *(p for folder in test.parents if (p := folder / "conftest.py").exists())]
    if test.parent == ROOT / "tests" / "cli":  # they run the command
        waiting.append(ROOT / "cli" / "main.py")
    found: set[str] = set()
    while waiting:
        new = uses(waiting.pop(), known) - found
        found |= new
        waiting += [known[name] for name in new]
    return found


def test_every_module_has_a_test_that_mirrors_it_or_a_line_here() -> None:
    without = {str(p.relative_to(ROOT)) for p in modules().values() if p.stem[:2] != "__" and not mirror(p).exists()}
    assert without == set(COVERED_BY)


def test_what_is_listed_is_covered_by_a_test_that_comes_to_it() -> None:
    known = modules()
    tests = {test: ROOT / "tests" / test for test in set(COVERED_BY.values())}
    assert [test for test, path in tests.items() if not path.exists()] == []
    by_test = {test: reached(path, known) for test, path in tests.items()}
    names = {module: ".".join(Path(module).with_suffix("").parts) for module in COVERED_BY}
    assert [(module, test) for module, test in COVERED_BY.items() if names[module] not in by_test[test]] == []
