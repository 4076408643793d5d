"""Roboflow's own tests that touch SAM 2, and which of ours ask the same of our blocks and server.

Source: github.com/roboflow/inference at ``3bb973b`` (August 2026). `SAME` have the same inputs and
expected outputs, written anew; `DIFFERENT` expect something else there, and
``docs/coming-from/roboflow.md`` says why. ``tests/test_roboflow_docs.py`` checks both, and counts.
"""

from __future__ import annotations

WORKFLOWS = "tests/workflows/"
UNIT = f"{WORKFLOWS}unit_tests/core_steps/"
FOUNDATION = f"{UNIT}models/foundation/"
COMMON = f"{UNIT}common/"
SERVER = "tests/inference/"
MODELS = "inference_models/tests/"

ROBOFLOW = "hosts/roboflow/test_upstream"
HTTP = "hosts/http/test_upstream.py"
SERVICE = "service/test_upstream.py"
MASKS = f"{ROBOFLOW}_masks.py"
VIDEO = f"{ROBOFLOW}_video.py"
REMOTE = f"{ROBOFLOW}_remote.py"
BLOCK = f"{ROBOFLOW}.py"
TWO_DOGS = "test_two_dogs_of_a_detector_are_two_masks_of_dogs"
CLICKS = "hosts/roboflow/test_clicks.py"
PROPOSED = f"{HTTP}::test_three_masks_are_proposed_for_a_box_and_points_of_each_object"
MISMATCH = f"{HTTP}::test_points_and_labels_that_do_not_match_are_refused"
TEXT = f"{HTTP}::test_a_video_is_not_prompted_by_text"
NO_SESSION = f"{HTTP}::test_a_frame_without_a_session_is_an_error"

SAME: dict[str, dict[str, str]] = {
    f"{WORKFLOWS}integration_tests/execution/test_workflow_with_sam2.py": {
        "test_sam2_model_validation_when_minimalistic_config_is_provided": (
            f"{BLOCK}::test_a_minimal_step_is_valid_by_both_names_of_the_picture"
        ),
        "test_sam2_model_validation_when_parameters_have_invalid_type": (
            f"{BLOCK}::test_a_wrong_parameter_is_refused"
        ),
        "test_sam2_workflow_when_minimal_valid_input_provided": (
            f"{BLOCK}::test_a_picture_alone_is_segmented"
        ),
        "test_sam2_workflow_when_minimal_valid_input_provided_but_filtering_discard_mask": (
            f"{BLOCK}::test_a_threshold_discards_what_the_model_is_less_sure_of"
        ),
        "test_grounded_sam2_workflow": f"{BLOCK}::{TWO_DOGS}",
    },
    f"{FOUNDATION}test_segment_anything2.py": {
        "test_manifest_parsing_valid": f"{BLOCK}::test_every_version_is_valid",
        "test_run_remotely_calls_sam2_segment_image": (
            f"{REMOTE}::test_their_sam2_block_asks_us_for_the_picture_alone"
        ),
        "test_run_remotely_with_prompts": (f"{REMOTE}::test_their_sam2_block_asks_us_with_boxes"),
    },
    f"{FOUNDATION}test_segment_anything3_interactive.py": {
        "test_manifest_parsing_with_literal_points": (
            f"{BLOCK}::test_points_are_valid_as_mappings_sequences_and_selector"
        ),
        "test_manifest_parsing_with_points_selector": (
            f"{BLOCK}::test_points_are_valid_as_mappings_sequences_and_selector"
        ),
        "test_manifest_parsing_with_sequence_points": (
            f"{BLOCK}::test_points_are_valid_as_mappings_sequences_and_selector"
        ),
        "test_manifest_parsing_rejects_invalid_points": (
            f"{BLOCK}::test_a_wrong_parameter_is_refused"
        ),
        "test_run_locally_with_point_prompts": (
            f"{BLOCK}::test_points_are_one_prompt_and_one_object_of_the_foreground"
        ),
        "test_numpy_boxes_and_points_keep_class_zero_distinct_from_point_prompt": (
            f"{BLOCK}::test_points_beside_boxes_are_one_object_more"
        ),
        "test_run_locally_with_empty_detections_and_no_points": (
            f"{BLOCK}::test_no_detections_and_no_points_ask_for_nothing"
        ),
        "test_run_remotely_calls_sam3_visual_segment": (
            f"{REMOTE}::test_their_interactive_block_asks_us_with_points"
        ),
        "test_run_remotely_with_boxes": (
            f"{REMOTE}::test_their_interactive_block_asks_us_with_boxes"
        ),
    },
    f"{FOUNDATION}test_segment_anything2_video.py": {
        "test_manifest_parses_valid_config": f"{VIDEO}::test_a_valid_step_has_their_defaults",
        "test_manifest_rejects_unknown_prompt_mode": (
            f"{VIDEO}::test_an_unknown_prompt_mode_is_refused"
        ),
        "test_block_accepts_remote_execution_mode_at_initialisation": (
            f"{VIDEO}::test_steps_run_in_this_process_whatever_mode_the_engine_is_in"
        ),
        "test_every_frame_mode_reprompts_every_frame": (
            f"{VIDEO}::test_every_frame_prompts_every_frame"
        ),
        "test_stream_restart_triggers_session_reset": (
            f"{VIDEO}::test_a_stream_that_restarts_is_a_new_session"
        ),
        "test_state_dict_threaded_across_track_calls": (
            f"{VIDEO}::test_state_goes_from_frame_to_frame"
        ),
        "test_multiple_video_streams_have_independent_sessions": (
            f"{VIDEO}::test_streams_have_sessions_of_their_own"
        ),
    },
    f"{COMMON}test_serializers.py": {
        "test_serialise_sv_detections": (f"{MASKS}::test_outlines_are_written_beside_all_columns"),
        "test_serialise_sv_detections_when_mask_with_single_point_detected_present": (
            f"{MASKS}::test_outlines_are_written_beside_all_columns"
        ),
        "test_serialise_sv_detections_when_empty_mask_detected": (
            f"{MASKS}::test_outlines_are_written_beside_all_columns"
        ),
        "test_serialise_sv_detections_with_parent_origin_when_crop": (
            f"{MASKS}::test_origins_of_crops_are_written_and_of_pictures_not"
        ),
        "test_serialise_sv_detections_without_parent_origin_when_not_crop": (
            f"{MASKS}::test_origins_of_crops_are_written_and_of_pictures_not"
        ),
        "test_serialise_sv_detections_prefers_largest_contour_after_downscale": (
            f"{MASKS}::test_after_scaling_the_largest_outline_is_written"
        ),
        "test_mask_to_polygon_when_no_contours_to_be_found": (
            f"{MASKS}::test_an_outline_is_that_of_the_mask"
        ),
        "test_mask_to_polygon_when_mask_contains_point": (
            f"{MASKS}::test_an_outline_is_that_of_the_mask"
        ),
        "test_mask_to_polygon_when_mask_contains_line": (
            f"{MASKS}::test_an_outline_is_that_of_the_mask"
        ),
        "test_mask_to_polygon_when_mask_contains_standard_shape": (
            f"{MASKS}::test_an_outline_is_that_of_the_mask"
        ),
        "test_mask_to_polygon_when_mask_contains_multiple_shapes": (
            f"{MASKS}::test_the_outline_is_the_outer_one_of_the_largest_part"
        ),
        "test_mask_to_polygon_when_mask_contains_hole": (
            f"{MASKS}::test_the_outline_is_the_outer_one_of_the_largest_part"
        ),
        "test_mask_to_polygon_output_reconstruction_when_output_was_padded": (
            f"{MASKS}::test_a_padded_outline_is_filled_to_the_mask"
        ),
        "test_serialise_rle_sv_detections": (
            f"{MASKS}::test_run_lengths_alone_are_written_as_they_are"
        ),
        "test_serialise_rle_sv_detections_preserves_detection_with_empty_dense_mask": (
            f"{MASKS}::test_a_row_whose_mask_is_empty_stays_among_run_lengths"
        ),
        "test_serialise_rle_sv_detections_with_bytes_counts": (
            f"{MASKS}::test_counts_in_bytes_are_written_as_text"
        ),
        "test_serialise_rle_sv_detections_with_parent_origin": (
            f"{MASKS}::test_run_lengths_of_crops_are_written_with_their_origins"
        ),
    },
    f"{COMMON}test_rle_compact.py": {
        "test_coco_counts_decoder_inverts_pycocotools": (
            f"{MASKS}::test_run_lengths_of_coco_are_read"
        ),
        "test_parity_with_from_dense": (
            f"{MASKS}::test_compact_masks_of_run_lengths_are_the_masks"
        ),
        "test_mask_whose_first_pixel_is_true": (
            f"{MASKS}::test_masks_that_begin_or_end_inside_are_read"
        ),
        "test_mask_whose_last_pixel_is_true": (
            f"{MASKS}::test_masks_that_begin_or_end_inside_are_read"
        ),
        "test_all_true_mask_hits_both_boundaries": (
            f"{MASKS}::test_masks_that_begin_or_end_inside_are_read"
        ),
        "test_adapter_matches_full_frame_decode": (
            f"{MASKS}::test_compact_masks_keep_no_more_than_their_boxes"
        ),
        "test_empty_masks": f"{MASKS}::test_no_masks_have_a_size",
    },
    f"{COMMON}test_rle_embed.py": {
        "test_embed_empty_masks_returns_empty_on_canvas": (
            f"{MASKS}::test_no_masks_of_a_crop_have_the_size_of_the_picture"
        ),
        **dict.fromkeys(
            (
                "test_embed_single_instance_interior_placement",
                "test_embed_single_instance_top_left_origin",
                "test_embed_multiple_instances_interior",
                "test_embed_full_zero_slice",
                "test_embed_full_one_slice",
                "test_embed_slice_with_full_zero_and_full_one_columns",
                "test_embed_slice_fills_entire_canvas",
                "test_embed_slice_flush_to_bottom_right",
                "test_embed_single_pixel_slice",
            ),
            f"{MASKS}::test_the_mask_of_a_crop_is_put_where_the_crop_lies",
        ),
        "test_embed_random_small_masks_match_reference": (
            f"{MASKS}::test_any_small_mask_is_put_where_it_lies"
        ),
        **dict.fromkeys(
            (
                "test_embed_raises_when_slice_does_not_fit_in_width",
                "test_embed_raises_when_slice_does_not_fit_in_height",
                "test_embed_raises_on_negative_offset",
            ),
            f"{MASKS}::test_a_crop_that_reaches_outside_is_refused",
        ),
    },
    f"{SERVER}unit_tests/core/utils/test_rle_to_polygon.py": {
        "test_rle_masks_to_polygons_matches_legacy_dense_path_on_adversarial_masks": (
            f"{MASKS}::test_polygons_of_adversarial_masks_are_those_of_the_dense_way"
        ),
        "test_rle_masks_to_polygons_matches_legacy_dense_path_on_random_masks": (
            f"{MASKS}::test_polygons_of_random_masks_are_those_of_the_dense_way"
        ),
    },
    f"{SERVER}integration_tests/test_sam2.py": {
        "test_sam2": f"{HTTP}::test_every_version_answers",
    },
    f"{SERVER}models_predictions_tests/test_sam2.py": {
        "test_sam2_single_image_embedding": f"{SERVICE}::test_an_image_is_embedded",
        "test_sam2_single_prompted_image_segmentation": (
            f"{SERVICE}::test_one_click_gives_the_mask_and_the_score_of_the_model"
        ),
        "test_sam2_single_prompted_image_segmentation_uses_cache": (
            f"{SERVICE}::test_an_image_that_was_embedded_is_not_embedded_again"
        ),
        "test_sam2_single_prompted_image_segmentation_mask_cache_works": (
            f"{SERVICE}::test_logits_that_were_kept_change_the_mask_of_more_clicks"
        ),
        "test_sam2_single_prompted_image_segmentation_mask_cache_changes_behavior": (
            f"{SERVICE}::test_logits_that_were_kept_change_the_mask_of_more_clicks"
        ),
        "test_sam2_multi_poly": f"{SERVICE}::test_polygons_and_run_lengths_are_one_mask",
        "test_model_clears_cache_properly": (
            f"{SERVICE}::test_caches_of_two_hold_out_against_five_names"
        ),
        "test_sam2_segment_with_rle_format": f"{SERVICE}::test_run_lengths_are_those_of_coco",
    },
    f"{SERVER}unit_tests/models/test_sam2_inference_models.py": {
        "test_segment_image_with_cached_image_id_skips_preprocessing": (
            f"{SERVICE}::test_an_image_that_was_embedded_is_not_embedded_again"
        ),
        "test_segment_image_falls_back_to_preprocessing_on_cache_miss": (
            f"{SERVICE}::test_a_name_whose_embedding_is_gone_is_embedded_again_from_its_image"
        ),
        "test_segment_image_propagates_non_cache_miss_input_error": (
            f"{SERVICE}::test_a_prompt_that_is_wrong_is_the_error_and_embeds_nothing_again"
        ),
    },
    f"{SERVER}unit_tests/models/test_sam3_visual_segmentation.py": {
        "test_segment_image_returns_one_prediction_per_prompt": (
            f"{HTTP}::test_there_is_one_prediction_a_prompt"
        ),
        "test_segment_image_with_single_prompt_keeps_prompt_dimension": (
            f"{HTTP}::test_there_is_one_prediction_a_prompt"
        ),
        "test_segment_image_forwards_all_prompts_to_model": (
            f"{HTTP}::test_all_prompts_reach_the_model"
        ),
        "test_segment_image_with_cached_image_id_skips_preprocessing": (
            f"{HTTP}::test_a_named_image_is_embedded_once"
        ),
        "test_segment_image_falls_back_to_preprocessing_on_cache_miss": (
            f"{HTTP}::test_a_named_image_whose_embedding_is_gone_is_embedded_again"
        ),
        "test_segment_image_without_image_id_records_cache_not_attempted": (
            f"{HTTP}::test_an_image_without_a_name_is_embedded"
        ),
        "test_segment_image_propagates_non_cache_miss_input_error": (
            f"{HTTP}::test_a_wrong_prompt_is_the_error_and_nothing_is_embedded_for_it"
        ),
    },
    f"{SERVER}unit_tests/core/interfaces/http/test_cors.py": {
        "test_no_match_paths_applies_cors_everywhere": (
            f"{HTTP}::test_pages_of_a_named_origin_may_call_every_address"
        ),
        "test_cors_preflight_with_matching_path": (f"{HTTP}::test_a_page_may_ask_before_it_calls"),
    },
    f"{MODELS}unit_tests/models/test_sam2_torch.py": {
        "test_find_prior_prompt_in_cache_returns_none_when_no_prompt_matches": (
            f"{HTTP}::test_logits_of_other_clicks_are_not_taken"
        ),
        "test_find_prior_prompt_in_cache_returns_nearest_matching_prior_prompt": (
            f"{HTTP}::test_logits_of_the_first_clicks_are_taken_for_more"
        ),
    },
    f"{MODELS}unit_tests/models/test_sam2_video.py": {
        "test_sam2_video_rejects_text_prompt": TEXT,
        "test_sam2_video_accepts_box_prompt": f"{HTTP}::test_a_video_is_prompted_by_a_box",
        "test_sam2_video_track_without_state_raises": (NO_SESSION),
        "test_sam2_video_track_reuses_session": (
            f"{HTTP}::test_later_frames_go_on_with_the_session"
        ),
    },
    f"{MODELS}integration_tests/models/test_sam2_predictions.py": {
        "test_sam2_predictions_with_batch_size_misaligned_prompts_batch_size": MISMATCH,
        "test_sam2_predictions_with_batch_size_misaligned_prompts_size_structure": (
            f"{CLICKS}::test_as_many_boxes_as_prompts_are_wanted"
        ),
        "test_sam2_predictions_with_multiple_mixed_prompt_elements_for_single_image": PROPOSED,
        "test_sam2_predictions_with_multiple_prompt_elements_for_single_image": PROPOSED,
        "test_sam2_predictions_with_multiple_prompt_elements_for_multiple_images": PROPOSED,
    },
    f"{MODELS}integration_tests/models/test_sam2_video_predictions.py": {
        "test_sam2_video_box_prompt_then_track": (
            f"{HTTP}::test_a_square_is_prompted_by_its_box_and_tracked"
        ),
        "test_sam2_video_rejects_text_prompts": TEXT,
        "test_sam2_video_track_without_state_raises": NO_SESSION,
    },
}
"""By file of theirs: the name of a test there, and that of ours, its place in ``tests/`` first."""

NAMED_TO_THE_ENGINE = f"{VIDEO}::test_the_model_of_a_step_is_told_to_the_engine"

DIFFERENT: dict[str, dict[str, str]] = {
    f"{FOUNDATION}test_segment_anything2_video.py": {
        "test_block_rejects_remote_execution_mode_at_runtime": (
            f"{VIDEO}::test_steps_run_in_this_process_whatever_mode_the_engine_is_in"
        ),
        "test_first_frame_mode_prompts_once_then_tracks": (
            f"{VIDEO}::test_first_frame_prompts_once_then_tracks"
        ),
        "test_every_n_frames_mode_reprompts_after_interval": (
            f"{VIDEO}::test_every_n_frames_prompts_on_every_nth"
        ),
        "test_no_boxes_and_no_session_emits_empty_detections": (
            "hosts/roboflow/test_video.py::test_without_boxes_everything_is_followed"
        ),
    },
    f"{FOUNDATION}test_segment_anything3_interactive.py": {
        "test_tensor_boxes_and_points_keep_class_zero_distinct_from_point_prompt": (
            "hosts/roboflow/test_blocks.py::test_tensor_mode_is_refused_at_compilation"
        ),
    },
    f"{UNIT}dependent_resources/test_segment_anything2.py": dict.fromkeys(
        (
            "test_segment_anything2_v1_default_version_synthesizes_model_id",
            "test_segment_anything2_v1_explicit_version_synthesizes_model_id",
            "test_segment_anything2_v1_selector_fed_version_is_returned_verbatim",
        ),
        NAMED_TO_THE_ENGINE,
    ),
    f"{COMMON}test_serializers.py": {
        "test_serialise_rle_sv_detections_raises_when_no_rle_masks": (
            f"{MASKS}::test_boxes_alone_are_written_where_there_they_are_an_error"
        ),
    },
}
"""The same of those whose expectation is not ours."""

LEFT_OUT = {
    f"{FOUNDATION}test_segment_anything2_video.py": (
        "test_model_loader_forwards_extra_weight_provider_headers: of their platform's weights"
    ),
    f"{UNIT}dependent_resources/test_segment_anything2_video.py": (
        "that their block does not yet say which model it needs; ours does"
    ),
    f"{FOUNDATION}test_segment_anything3_interactive.py": (
        "test_run_raises_when_no_prompts_given: against their block of SAM 2, which takes none"
    ),
    f"{UNIT}dependent_resources/test_segment_anything3_interactive.py": (
        "the name of their model of SAM 3, and where it runs"
    ),
    f"{COMMON}test_rle_compact.py": (
        "test_degenerate_box_decides_on_clipped_coordinates: no mask of ours is cut by its box"
    ),
    f"{COMMON}test_serializers.py": "tests of pictures, key points, classes and tensors",
    f"{SERVER}unit_tests/core/utils/test_rle_to_polygon.py": (
        "which of two functions of theirs is called, and their class of run lengths"
    ),
    f"{SERVER}unit_tests/models/test_sam3_visual_segmentation.py": (
        "test_adapter_init_honors_cache_device_setting: a switch of theirs"
    ),
    f"{SERVER}unit_tests/core/interfaces/http/test_cors.py": (
        "an expression for addresses, which we have no option for"
    ),
    f"{MODELS}unit_tests/models/test_sam2_torch.py": (
        "test_segment_images_moves_cached_embedding_to_model_device: calls among their classes"
    ),
    f"{MODELS}integration_tests/models/test_sam2_predictions.py": (
        "numbers of the public checkpoints; the same network is compared with the official one on "
        "equal weights in tests/executor"
    ),
    f"{MODELS}integration_tests/models/test_sam2_video_predictions.py": (
        "test_sam2_video_accepts_torch_tensor_input: of a Python class of theirs"
    ),
    f"{MODELS}e2e_platform_tests/test_sam2_e2e.py": "a model from their platform",
    f"{FOUNDATION}test_segment_anything3_video.py": "phrases as prompts, which SAM 2 has not",
    f"{FOUNDATION}test_segment_anything3_v3.py": "likewise",
    f"{FOUNDATION}test_segment_anything3_3d.py": "another model, of meshes",
    f"{SERVER}unit_tests/models/test_sam3.py": "phrases as prompts, which SAM 2 has not",
    f"{SERVER}integration_tests/test_sam3.py": "likewise",
}
"""Files, or tests of the files above, that ask nothing of ours, and why."""


def flat(table: dict[str, dict[str, str]]) -> list[tuple[str, str, str]]:
    """Rows of a table: file and name of theirs, and the test of ours."""
    return [(file, name, ours) for file, names in table.items() for name, ours in names.items()]
