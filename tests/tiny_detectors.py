"""Seeded detectors of the transformers library, tiny, saved as users save them. No network."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] . , ? a the cup spoon cat dog on table person car red blue"


def define_torchvision_operators():
    """Let ``import torchvision`` succeed beside a torch that lacks its operators.

    A torchvision of the package registry is built for CUDA and fails beside a torch for CPUs.
    Names are enough for the library's image processors. Returns what keeps them defined.
    """
    import torch

    try:
        import torchvision  # noqa: F401

        return None
    except RuntimeError:
        folder = importlib.util.find_spec("torchvision").submodule_search_locations[0]
    source = Path(folder, "_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(
        set(re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"', source))
    ):
        try:
            library.define(f"{name}(Tensor x) -> Tensor")
        except RuntimeError:
            continue  # there already
    return library


def _backbone(lib):
    return lib.RTDetrResNetConfig(
        embedding_size=10,
        hidden_sizes=[10, 20, 30, 40],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


LABELS = {0: "cat", 1: "dog", 2: "person"}
NAMES = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}


def rt_detr_v2(lib, folder):
    config = lib.RTDetrV2Config(
        backbone_config=_backbone(lib),
        encoder_hidden_dim=32,
        encoder_in_channels=[20, 30, 40],
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=8,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=30,
        num_denoising=0,
        **NAMES,
    )
    _save(lib.RTDetrV2ForObjectDetection(config), folder)
    _save(lib.RTDetrImageProcessor(size={"height": 64, "width": 64}), folder)


def rt_detr(lib, folder):
    config = lib.RTDetrConfig(
        backbone_config=_backbone(lib),
        encoder_hidden_dim=32,
        encoder_in_channels=[20, 30, 40],
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=8,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=30,
        num_denoising=0,
        **NAMES,
    )
    _save(lib.RTDetrForObjectDetection(config), folder)
    _save(lib.RTDetrImageProcessor(size={"height": 64, "width": 64}), folder)


def yolos(lib, folder):
    config = lib.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=20,
        **NAMES,
    )
    _save(lib.YolosForObjectDetection(config), folder)
    _save(lib.YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}), folder)


def d_fine(lib, folder):
    backbone = lib.HGNetV2Config(
        embedding_size=10,
        hidden_sizes=[10, 20, 30, 40],
        depths=[1, 1, 1, 1],
        stem_channels=[3, 10, 10],
        stage_in_channels=[10, 10, 20, 30],
        stage_mid_channels=[10, 10, 10, 10],
        stage_out_channels=[10, 20, 30, 40],
        stage_num_blocks=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 3, 3],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    config = lib.DFineConfig(
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[20, 30, 40],
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=8,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_n_points=[2, 2, 2],
        num_queries=30,
        num_denoising=0,
        **NAMES,
    )
    _save(lib.DFineForObjectDetection(config), folder)
    _save(lib.RTDetrImageProcessor(size={"height": 64, "width": 64}), folder)


def rf_detr_seg(lib, folder):
    backbone = lib.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        num_windows=2,
        out_features=["stage2", "stage4"],
    )
    config = lib.RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_ffn_dim=32,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=10,
        group_detr=1,
        intermediate_size=32,
        **NAMES,
    )
    _save(lib.RfDetrForInstanceSegmentation(config), folder)
    _save(lib.RfDetrImageProcessor(size={"height": 64, "width": 64}), folder)


def _swin(lib):
    return lib.SwinConfig(
        window_size=7,
        embed_dim=12,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        image_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )


def grounding_dino(lib, folder):
    words = WORDS.split()
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = lib.BertTokenizer(vocab=str(folder / "vocab.txt"))
    text = lib.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    swin = _swin(lib)
    config = lib.GroundingDinoConfig(
        text_config=text,
        backbone_config=swin,
        d_model=32,
        encoder_layers=2,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
        num_queries=30,
        num_feature_levels=4,
        max_text_len=16,
        fusion_droppath=0.0,
        fusion_dropout=0.0,
    )
    images = lib.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    _save(lib.GroundingDinoForObjectDetection(config), folder)
    _save(lib.GroundingDinoProcessor(images, tokenizer), folder)


def _clip_tokenizer(lib, length, signs=""):
    """Reads letters, and signs if given: ``(tokenizer, its settings of a network)``."""
    letters = "abcdefghijklmnopqrstuvwxyz" + signs
    words = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", *letters]
    words += [f"{letter}</w>" for letter in letters]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = lib.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)
    settings = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return tokenizer, {**settings, "max_position_embeddings": length}


def owlv2(lib, folder):
    tokenizer, text = _clip_tokenizer(lib, 16)
    config = lib.Owlv2Config(
        text_config={
            **text,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        projection_dim=32,
    )
    images = lib.Owlv2ImageProcessor(size={"height": 64, "width": 64})
    _save(lib.Owlv2ForObjectDetection(config), folder)
    _save(lib.Owlv2Processor(images, tokenizer), folder)


def omdet_turbo(lib, folder):
    tokenizer, text = _clip_tokenizer(lib, 77, signs=",.")
    swin = _swin(lib)
    config = lib.OmDetTurboConfig(
        text_config={
            "model_type": "clip_text_model",
            **text,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "projection_dim": 64,
        },
        backbone_config=swin,
        apply_layernorm_after_vision_backbone=False,  # that is for the layout of timm's
        image_size=64,
        text_projection_in_dim=64,
        text_projection_out_dim=64,
        class_embed_dim=64,  # another than that of the decoder, as it takes for granted
        task_encoder_hidden_dim=32,
        encoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32],
        encoder_in_channels=[24, 48, 96],
        encoder_attention_heads=2,
        encoder_dim_feedforward=32,
        decoder_hidden_dim=32,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=32,
        num_queries=30,
        eval_size=64,
    )
    images = lib.DetrImageProcessor(size={"height": 64, "width": 64}, do_pad=False)
    _save(lib.OmDetTurboForObjectDetection(config), folder)
    _save(lib.OmDetTurboProcessor(images, tokenizer), folder)


MAKERS = {
    maker.__name__: maker
    for maker in (
        rt_detr_v2,
        rt_detr,
        d_fine,
        yolos,
        rf_detr_seg,
        grounding_dino,
        owlv2,
        omdet_turbo,
    )
}


def save_tiny(name: str, folder: Path) -> Path:
    """Make a model and its processor with seeded weights and save both into a folder."""
    import torch

    from sam2_blocks.executor.transformers.library import transformers

    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MAKERS[name](transformers(), folder)
    return folder


def _save(part, folder):
    part.save_pretrained(folder)
