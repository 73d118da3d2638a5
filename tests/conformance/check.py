"""Conformance check: run the package `i2v` against the golden data.

    python check.py                     every default check
    python check.py --fast              the short ones
    python check.py --case box mask     chosen ones        python check.py --list
    python check.py --case trace        module-by-module comparison (diagnosis)
    python check.py --case modules      direct module calls (diagnosis)
Exit status: 0 all passed, 1 something failed (with --strict a skipped check counts as failed), 2 could not start.
See README.md for the contract the package must meet.
"""
import argparse
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import traceback
import types
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import cases as case_table  # noqa: E402
import inputs  # noqa: E402
import runner  # noqa: E402
import weights  # noqa: E402

GOLDEN = os.path.join(os.path.dirname(HERE), "golden")

# Tolerances per frame: max |logit difference|, mean |logit difference|, smallest mask IoU over the objects.
# DEFAULT_TOL is the floor; tolerances.json next to the goldens widens it for cases whose measured noise is larger
# (three times the change caused by relative noise of 1e-5 on the image features; see README.md).
DEFAULT_TOL = (5e-3, 1e-3, 0.999)
TOL_STATE = 5e-3       # object scores, predicted IoUs, object pointers (reported; see --strict-state)
TOL_TRACE = 1e-2       # module traces: max |difference| / standard deviation of the golden tensor


class Skip(Exception):
    pass


class Fail(Exception):
    pass


# --------------------------------------------------------------------------------------
# the package under test
# --------------------------------------------------------------------------------------


def load_adapter(opts=None):
    """The project's tests/conformance_adapter.py (or --adapter FILE) over the defaults of adapter_default.py."""
    default = os.path.join(HERE, "adapter_default.py")
    own = getattr(opts, "adapter", None) or ADAPTER or os.path.join("tests", "conformance_adapter.py")
    modules = []
    for path in (default, own):
        if os.path.exists(path):
            spec = importlib.util.spec_from_file_location("conformance_adapter_%d" % len(modules), path)
            mod = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(mod)
            modules.append(mod)
    merged = types.SimpleNamespace()
    for mod in modules:
        merged.__dict__.update({k: v for k, v in vars(mod).items() if callable(v) and not k.startswith("_")})
    return merged


ADAPTER = None


def load_layout():
    with open(os.path.join(GOLDEN, "state_dict.json")) as f:
        return json.load(f)


def load_weights(predictor):
    state = weights.det_state_dict([(k, s) for k, (s, _) in load_layout().items()])
    load_adapter().load_weights(predictor, state)
    return predictor


def set_selection(predictor, mode, seed=123):
    load_adapter().set_selection(predictor, mode, seed)


_MODEL = None


def get_model():
    global _MODEL
    if _MODEL is None:
        t = time.time()
        _MODEL = load_weights(load_adapter().build_predictor())
        print("model built and weights loaded in %.0f s" % (time.time() - t), flush=True)
    return _MODEL


# --------------------------------------------------------------------------------------
# end-to-end cases
# --------------------------------------------------------------------------------------


def unpack(bits, shape):
    n = shape[0] * shape[1]
    return np.unpackbits(bits, axis=-1)[..., :n].astype(bool)


def tolerance(name, golden_dir):
    path = os.path.join(golden_dir, "tolerances.json")
    table = {}
    if os.path.exists(path):
        with open(path) as f:
            table = json.load(f)
    return tuple(table.get(name, DEFAULT_TOL))


def compare_case(case, got, gold, tol=DEFAULT_TOL, strict_state=False, verbose=False):
    """-> (failures, notes, summary): lists of strings and a line"""
    tol_max, tol_mean, tol_iou = tol
    fails, notes = [], []
    worst = dict(max=0.0, mean=0.0, iou=1.0, scores=None, ious=None, obj_ptr=None, sel=None)
    nframes, prompted = 0, set()
    for i, (a, b) in enumerate(zip(got, gold)):
        if b is None:  # reset
            prompted = set()
            continue
        if b["kind"] != "propagate":
            prompted.update(b["frames"])
        tag = "step %d (%s)" % (i, b["kind"])
        if a["frames"] != b["frames"]:
            fails.append("%s: frames %s, expected %s" % (tag, a["frames"], b["frames"]))
            continue
        if a["obj_ids"] != b["obj_ids"]:
            fails.append("%s: object ids %s, expected %s" % (tag, a["obj_ids"], b["obj_ids"]))
            continue
        if list(a["shape"]) != list(b["shape"]) or a["logits"].shape != b["logits"].shape:
            fails.append("%s: mask shape %s, expected %s" % (tag, a["shape"], b["shape"]))
            continue
        skip = set(case.get("skip_frames", {}).get(i, ()))
        for j, frame in enumerate(b["frames"]):
            if not np.isfinite(a["logits"][j]).all():
                fails.append("%s frame %d: logits are not finite" % (tag, frame))
            if frame in skip:
                continue
            nframes += 1
            x, y = a["logits"][j].astype(np.float64), b["logits"][j].astype(np.float64)
            d = np.abs(x - y)
            d = np.where(np.isfinite(d), d, np.inf)
            mx, mn = float(d.max()), float(d.mean())
            p, q = unpack(a["bits"][j], b["shape"]), unpack(b["bits"][j], b["shape"])
            inter, union = (p & q).sum(1), (p | q).sum(1)
            iou = float(np.where(union > 0, inter / np.maximum(union, 1), 1.0).min())
            bad = []
            if mx > tol_max:
                bad.append("max|dlogit| %.2e" % mx)
            if mn > tol_mean:
                bad.append("mean|dlogit| %.2e" % mn)
            if iou < tol_iou:
                bad.append("IoU %.5f" % iou)
            worst["max"], worst["mean"], worst["iou"] = max(worst["max"], mx), max(worst["mean"], mn), min(worst["iou"], iou)
            for k in ("scores", "ious", "obj_ptr"):
                if a[k] is not None and b[k] is not None and a[k][j].shape == b[k][j].shape:
                    ok = np.isfinite(b[k][j])
                    e = np.abs(a[k][j][ok] - b[k][j][ok])
                    e = float(np.where(np.isfinite(e), e, np.inf).max()) if e.size else 0.0
                    worst[k] = max(worst[k] or 0.0, e)
                    if e > TOL_STATE:
                        (bad if strict_state else notes).append("%s frame %d: %s off by %.2e" % (tag, frame, k, e))
            if a["selection"] is not None and b["selection"] is not None and frame not in prompted:
                wrong = int((a["selection"][j] != b["selection"][j]).any(axis=1).sum())
                worst["sel"] = (worst["sel"] or 0) + wrong
                if wrong:
                    bad.append("memory frames %s, expected %s" % (a["selection"][j].tolist(), b["selection"][j].tolist()))
            if verbose:
                print("    %s frame %d: max %.2e mean %.2e IoU %.6f %s" % (tag, frame, mx, mn, iou, "; ".join(bad)))
            if bad:
                fails.append("%s frame %d: %s" % (tag, frame, ", ".join(bad)))

    def show(v, fmt):
        return "-" if v is None else fmt % v

    summary = "%d frames  max|dlogit| %.2e  mean %.2e  min IoU %.6f  score %s  iou %s  ptr %s  wrong selections %s" % (
        nframes, worst["max"], worst["mean"], worst["iou"], show(worst["scores"], "%.1e"), show(worst["ious"], "%.1e"),
        show(worst["obj_ptr"], "%.1e"), show(worst["sel"], "%d"))
    return fails, notes, summary


def check_case(name, case, golden_dir, opts, frames_dir=None):
    model = get_model()
    set_selection(model, case["selection"], case.get("seed", 123))
    gold, _ = runner.load_results(os.path.join(golden_dir, name + ".npz"))
    got = runner.run_case(model, case, frames_dir=frames_dir)
    tol = tolerance(name, golden_dir)
    fails, notes, summary = compare_case(case, got, gold, tol, opts.strict_state, opts.verbose)
    summary += "  [allowed %.1e %.1e %.4f]" % tol
    for n in notes[:4]:
        print("    note: " + n)
    return fails, summary


# --------------------------------------------------------------------------------------
# small checks
# --------------------------------------------------------------------------------------


def check_layout(opts):
    with open(os.path.join(GOLDEN, "manifest.json")) as f:
        man = json.load(f)
    fails = []
    for v, h in man["videos"].items():
        if inputs.frames_sha256(inputs.make_video(v)[0]) != h:
            fails.append("synthetic video %s differs from the one the goldens were made with" % v)
    layout = load_layout()
    if weights.fingerprint([(k, s) for k, (s, _) in layout.items()]) != man["weights"]:
        fails.append("generated weights differ from the ones the goldens were made with")
    adapter = load_adapter(opts)
    own = {k: list(v.shape) for k, v in adapter.model_of(adapter.build_predictor()).state_dict().items()}
    want = {k: s for k, (s, _) in layout.items()}
    missing, extra = [k for k in want if k not in own], [k for k in own if k not in want]
    wrong = [k for k in want if k in own and own[k] != want[k]]
    for label, keys in (("missing", missing), ("unexpected", extra), ("wrong shape", wrong)):
        if keys:
            fails.append("state dict: %d %s keys, first: %s" % (len(keys), label, keys[:5]))
    return fails, "%d state-dict entries, %d videos" % (len(want), len(man["videos"]))


def adapted(opts, name):
    fn = getattr(load_adapter(opts), name, None)
    if fn is None:
        raise Skip("the adapter has no `%s`" % name)
    return fn


def call(fn, *a, **k):
    try:
        return fn(*a, **k)
    except (ImportError, NotImplementedError) as e:
        raise Skip("not provided: %s" % e)


def close(a, b, tol=1e-4):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= tol * (1.0 + np.abs(b))))


def check_holes(opts):
    fill = adapted(opts, "fill_holes")
    x = torch.from_numpy(inputs.hole_masks())
    z = np.load(os.path.join(GOLDEN, "holes.npz"))
    fails = []
    for area in (1, 8, 64):
        hole = np.unpackbits(z["holes_area%d" % area], axis=1).astype(bool).reshape(x.shape)
        want = torch.where(torch.from_numpy(hole), torch.tensor(0.1), x)
        got = call(fill, x.clone(), area)
        n = int((got != want).sum())
        if n:
            fails.append("max_area %d: %d pixels differ (%d should be filled)" % (area, n, int(hole.sum())))
    return fails, "6 masks, areas 1, 8, 64"


def check_losses(opts):
    ad = load_adapter(opts)
    with open(os.path.join(GOLDEN, "losses.json")) as f:
        gold = json.load(f)
    d = inputs.loss_inputs()
    targets = torch.from_numpy(d["targets"])
    fails, done = [], 0

    def test(label, value, want):
        nonlocal done
        done += 1
        value = value.detach().tolist() if torch.is_tensor(value) else value
        if not close(value, want):
            fails.append("%s: %s, expected %s" % (label, value, want))

    for e in gold["functions"]:
        s = next(s for s in d["steps"] if s["masks"].shape[2] == e["num_masks"])
        t, n = e["frame"], e["num_objects"]
        m = torch.from_numpy(s["masks"][t])
        tg = targets[t][:, None].float().expand_as(m)
        ious, scores = torch.from_numpy(s["ious"][t]), torch.from_numpy(s["scores"][t])
        present = targets[t].flatten(1).any(1)[:, None].float()
        lab = "frame %d, %d masks: " % (t, e["num_masks"])
        for name in ("structure_loss", "dice_loss", "sigmoid_focal_loss", "iou_loss"):
            if getattr(ad, name, None) is None:
                continue
            try:
                fn = getattr(ad, name)
                if name == "structure_loss":
                    test(lab + "structure", call(fn, m, tg, n, loss_on_multimask=True), e["structure_multi"])
                    test(lab + "structure single", call(fn, m[:, 0], tg[:, 0], n), e["structure_single"])
                elif name == "dice_loss":
                    test(lab + "dice", call(fn, m, tg, n, loss_on_multimask=True), e["dice_multi"])
                    test(lab + "dice single", call(fn, m[:, 0].flatten(1), tg[:, 0].flatten(1), n), e["dice_single"])
                elif name == "sigmoid_focal_loss":
                    for a, g in ((0.25, 2.0), (-1.0, 0.0), (0.5, 1.0)):
                        test(lab + "focal", call(fn, m, tg, n, alpha=a, gamma=g, loss_on_multimask=True), e["focal_multi_a%s_g%s" % (a, g)])
                        test(lab + "focal score", call(fn, scores, present, n, alpha=a, gamma=g), e["focal_score_a%s_g%s" % (a, g)])
                else:
                    for l1 in (False, True):
                        test(lab + "iou", call(fn, m, tg, ious, n, loss_on_multimask=True, use_l1_loss=l1), e["iou_multi_l1%d" % l1])
                        test(lab + "iou sum", call(fn, m, tg, ious, n, use_l1_loss=l1), e["iou_sum_l1%d" % l1])
            except Skip:
                continue
    crit = getattr(ad, "criterion", None)
    for st, e in zip(inputs.LOSS_SETTINGS, gold["criterion"]):
        if crit is None:
            break
        try:
            c = call(crit, **dict(st, weight_dict=dict(st["weight_dict"])))
        except Skip:
            break
        ms = [[torch.from_numpy(s["masks"][t]).requires_grad_() for s in d["steps"]] for t in range(2)]
        outs = [dict(multistep_pred_multimasks_high_res=ms[t],
                     multistep_pred_ious=[torch.from_numpy(s["ious"][t]) for s in d["steps"]],
                     multistep_object_score_logits=[torch.from_numpy(s["scores"][t]) for s in d["steps"]]) for t in range(2)]
        o = c(outs, targets)
        for k in ("loss_mask", "loss_iou", "loss_class", "core_loss"):
            test("criterion %s" % k, float(o[k]), e[k])
        o["core_loss"].backward()
        test("criterion gradient norms", [[g.grad.norm().item() for g in f] for f in ms], e["grad_l2"])
    if not done:
        raise Skip("no loss functions provided (see adapter_default.py)")
    return fails, "%d values" % done


def check_metrics(opts):
    evaluate = adapted(opts, "evaluate")
    with open(os.path.join(GOLDEN, "metrics.json")) as f:
        gold = json.load(f)
    fails = []
    with tempfile.TemporaryDirectory() as tmp:
        inputs.write_metric_dataset(tmp)
        for fmt in ("sav", "davis"):
            for skip in (True, False):
                r = call(evaluate, os.path.join(tmp, fmt, "gt"), os.path.join(tmp, fmt, "pred"), skip)
                want = gold["%s_skip%d" % (fmt, skip)]
                for k in ("J", "F", "JF"):
                    if not close(r[k], want[k], 1e-6):
                        fails.append("%s skip=%s %s: %s, expected %s" % (fmt, skip, k, r[k], want[k]))
                for v, objs in want["per_object"].items():
                    for o, jf in objs.items():
                        if "per_object" in r and not close(r["per_object"][v][o], jf, 1e-6):
                            fails.append("%s skip=%s %s/%s: %s, expected %s" % (fmt, skip, v, o, r["per_object"][v][o], jf))
    return fails, "2 formats, with and without first/last frame"


def check_clicks(opts):
    ad = load_adapter(opts)
    with open(os.path.join(GOLDEN, "clicks.json")) as f:
        gold = json.load(f)
    fails, done = [], 0

    def first(x):
        return np.asarray(x.tolist() if torch.is_tensor(x) else x, np.float64)

    for i, ((g, p), e) in enumerate(zip(inputs.click_masks(), gold)):
        gt, pr = torch.from_numpy(g)[None, None], torch.from_numpy(p)[None, None]
        for name in ("point_from_error_center", "centroid_pixel", "random_points_from_errors", "box_points"):
            fn = getattr(ad, name, None)
            if fn is None:
                continue
            try:
                if name == "point_from_error_center":
                    for key, pad in (("center", True), ("center_nopad", False)):
                        pt, lb = call(fn, gt, pr, pad)
                        ok = int(first(lb).reshape(-1)[0]) == e[key + "_label"] and (
                            e[key + "_margin"] < 0.01 or close(first(pt).reshape(-1)[:2], e[key]))
                        if not ok:
                            fails.append("pair %d %s: %s %s, expected %s %s" % (i, key, first(pt).tolist(), first(lb).tolist(), e[key], e[key + "_label"]))
                elif name == "centroid_pixel":
                    v = call(fn, g)
                    if not close(first(v).reshape(-1), e["centroid_pixel"]):
                        fails.append("pair %d centroid: %s, expected %s" % (i, v, e["centroid_pixel"]))
                elif name == "random_points_from_errors":
                    torch.manual_seed(e["random_seed"])
                    pt, lb = call(fn, gt, pr, 4)
                    if not (close(first(pt)[0], e["random_points"]) and close(first(lb)[0], e["random_labels"])):
                        fails.append("pair %d random points: %s, expected %s" % (i, first(pt)[0].tolist(), e["random_points"]))
                else:
                    c, l = call(fn, gt, 0.0, 20)
                    if not (close(first(c)[0], e["box"]) and close(first(l)[0], e["box_labels"])):
                        fails.append("pair %d box: %s, expected %s" % (i, first(c)[0].tolist(), e["box"]))
                    torch.manual_seed(e["noisy_box_seed"])
                    c, _ = call(fn, gt, 0.1, 20)
                    if not close(first(c)[0], e["noisy_box"]):
                        fails.append("pair %d noisy box: %s, expected %s" % (i, first(c)[0].tolist(), e["noisy_box"]))
                done += 1
            except Skip:
                continue
    if not done:
        raise Skip("no click helpers provided (see adapter_default.py)")
    return fails, "%d results" % done


# --------------------------------------------------------------------------------------
# diagnosis: module traces and direct module calls
# --------------------------------------------------------------------------------------


def compare_summary(got, gold):
    """-> (status, relative error).  Same shape: sampled values; another layout of the same values: quantiles."""
    scale = max(float(gold["stats"][1]), 1e-6)
    if list(got["shape"]) == list(gold["shape"]):
        e = float(np.abs(got["samples"] - gold["samples"]).max()) / scale
        return ("ok" if e < TOL_TRACE else "DIFF"), e
    if int(np.prod(got["shape"])) == int(np.prod(gold["shape"])):
        e = float(np.abs(got["quant"] - gold["quant"]).max()) / scale
        return ("ok (other layout %s)" % list(got["shape"]) if e < TOL_TRACE else "DIFF (layout %s)" % list(got["shape"])), e
    return "DIFF (shape %s)" % list(got["shape"]), float("nan")


def compare_traces(records, gold):
    bad = []
    for g in gold:
        calls = records.get(g["name"], [])
        if g["call"] >= len(calls) or g["tensor"] >= len(calls[g["call"]]):
            status, e = "not seen", float("nan")
        else:
            status, e = compare_summary(calls[g["call"]][g["tensor"]], g)
        print("    %-62s call %d out %d %-20s %-9s %s" % (g["name"], g["call"], g["tensor"], g["shape"], "%.1e" % e, status))
        if status.startswith("DIFF"):
            bad.append("%s call %d output %d: %s (%.1e)" % (g["name"], g["call"], g["tensor"], status, e))
    return bad


def check_trace(opts):
    model = get_model()
    case = case_table.CASES["quick"]
    set_selection(model, case["selection"])
    tr = runner.Tracer(load_adapter(opts).model_of(model))
    try:
        runner.run_case(model, case)
    finally:
        tr.close()
    if tr.missing:
        print("    modules not found (not compared): " + ", ".join(tr.missing))
    return compare_traces(tr.records, runner.load_trace(os.path.join(GOLDEN, "trace.npz"))), "module outputs of case `quick`"


def direct_calls(model):
    """name -> function returning a list of tensors.  Official keyword names and layouts."""
    d = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in inputs.module_inputs().items()}
    pe, dec = model.sam_prompt_encoder, model.sam_mask_decoder

    def prompt(coords, labels, masks):
        return lambda: pe(points=(d[coords], d[labels]), boxes=None, masks=masks)

    def decoder(multi):
        return lambda: dec(
            image_embeddings=d["image_embeddings"], image_pe=pe.get_dense_pe(), sparse_prompt_embeddings=d["sparse"],
            dense_prompt_embeddings=d["dense"], memory_prompt_embeddings_fg=d["memory_prompts"],
            multimask_output=multi, repeat_image=False, high_res_features=None)

    mem = dict(memory=d["memory"], num_obj_ptr_tokens=d["num_obj_ptr_tokens"])
    return {
        "trunk_image": lambda: model.image_encoder.trunk_image(d["image"]),
        "image_encoder": lambda: model.image_encoder(
            d["image"], torch.stack([d["image"] * s for s in (0.2, 0.4, 0.6, 0.8, 1.0)], dim=2))["backbone_fpn"],
        "image_position": lambda: model.image_encoder.neck.position_encoding(torch.zeros(1, 256, 64, 64)),
        "memory_position": lambda: model.memory_encoder.position_encoding(torch.zeros(1, 64, 64, 64)),
        "dense_position": lambda: pe.get_dense_pe(),
        "memory_attention": lambda: model.memory_attention(curr=d["curr"], curr_pos=d["curr_pos"], memory_pos=d["memory_pos"], **mem),
        "memory_prompt_generator": lambda: model.memory_prompt_generator(
            memory_pos_embed=d["memory_pos"], mask_fg=d["mask_fg"], mask_bg=~d["mask_fg"], bs=1, **mem),
        "memory_encoder": lambda: model.memory_encoder(d["pix_feat"], d["mem_mask"], skip_mask_sigmoid=True),
        "prompt_points": prompt("point_coords", "point_labels", None),
        "prompt_box": prompt("box_coords", "box_labels", None),
        "prompt_mask": prompt("pad_coords", "pad_labels", d["mask_prompt"]),
        "decoder_multi": decoder(True),
        "decoder_single": decoder(False),
    }


def run_direct(model, report=print):
    records = {}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, fn in direct_calls(model).items():
            try:
                records[name] = [[runner.summarize(t) for t in runner.flat_tensors(fn()) if t.is_floating_point()]]
            except Exception as e:
                report("    %s: not called (%s: %s)" % (name, type(e).__name__, str(e).split("\n")[0][:100]))
    return records


def check_modules(opts):
    records = run_direct(load_adapter().model_of(get_model()))
    return compare_traces(records, runner.load_trace(os.path.join(GOLDEN, "modules.npz"))), "direct module calls"


# --------------------------------------------------------------------------------------

SMALL = {"layout": check_layout, "holes": check_holes, "losses": check_losses, "metrics": check_metrics, "clicks": check_clicks}
DIAGNOSIS = {"trace": check_trace, "modules": check_modules}


def run_checks(todo, opts):
    """todo: list of (name, function(opts) -> (fails, summary)).  Prints, returns the exit status."""
    count = dict(PASS=0, FAIL=0, SKIP=0)
    for name, fn in todo:
        t = time.time()
        try:
            fails, summary = fn(opts)
            status = "FAIL" if fails else "PASS"
        except Skip as e:
            fails, summary, status = [], str(e), "SKIP"
        except Fail as e:
            fails, summary, status = [str(e)], "", "FAIL"
        except Exception as e:
            fails, summary, status = ["%s: %s" % (type(e).__name__, e)], "", "FAIL"
            if opts.verbose:
                traceback.print_exc()
        count[status] += 1
        print("%-4s %-14s %s  (%.0f s)" % (status, name, summary, time.time() - t), flush=True)
        for f in fails[: None if opts.verbose else 4]:
            print("       " + f)
        if len(fails) > 4 and not opts.verbose:
            print("       ... %d more" % (len(fails) - 4))
    print("%(PASS)d passed, %(FAIL)d failed, %(SKIP)d skipped" % count)
    return 1 if count["FAIL"] or (opts.strict and count["SKIP"]) else 0


def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--case", nargs="+", metavar="NAME", help="checks to run")
    p.add_argument("--list", action="store_true")
    p.add_argument("--fast", action="store_true", help="small checks and the short end-to-end cases")
    p.add_argument("--strict", action="store_true", help="skipped checks fail")
    p.add_argument("--strict-state", action="store_true", help="object scores, IoUs and pointers out of tolerance fail")
    p.add_argument("--adapter", help="python file with your versions of adapter_default.py's functions (default: tests/conformance_adapter.py)")
    p.add_argument("--threads", type=int, help="torch threads")
    p.add_argument("--verbose", action="store_true")
    return p


def main(argv=None):
    global ADAPTER
    opts = parser().parse_args(argv)
    ADAPTER = opts.adapter
    if opts.threads:
        torch.set_num_threads(opts.threads)
    e2e = {n: (lambda o, n=n, c=c: check_case(n, c, GOLDEN, o)) for n, c in case_table.CASES.items()}
    table = dict(SMALL, **e2e, **DIAGNOSIS)
    if opts.list:
        for n in table:
            c = case_table.CASES.get(n)
            print("%-14s %s" % (n, "end-to-end, video %s, %d frames, %s" % (c["video"], c["n"], c["selection"]) if c
                                else ("diagnosis" if n in DIAGNOSIS else "small")))
        return 0
    names = opts.case or (list(SMALL) + list(case_table.FAST) if opts.fast
                          else list(SMALL) + [n for n in e2e if n not in case_table.PUBLISHED_ONLY])
    unknown = [n for n in names if n not in table]
    if unknown:
        print("unknown: %s (see --list)" % unknown)
        return 2
    return run_checks([(n, table[n]) for n in names], opts)


if __name__ == "__main__":
    sys.exit(main())
