# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: do not import this from outside, it may change without notice.
"""Facts of well-known models, so that planning works offline: written by tools/known_models.py. Do not edit.

Of each model: the repositories of the Hugging Face hub that hold it, the keys of its config.json that the plan reads,
the bytes of its weights and where that figure comes from (``index``: metadata.total_size of the safetensors index;
``headers``: the sum of the tensors; ``parameters``: their number times their size), the source of the configuration,
and what else has to be known.
"""

from __future__ import annotations

from typing import Any

KNOWN_MODELS: dict[str, dict[str, Any]] = {
    "autoglm-phone-9b": {
        "repositories": ["zai-org/AutoGLM-Phone-9B"],
        "config": {
            "architectures": ["Glm4vForConditionalGeneration"],
            "dtype": "bfloat16",
            "model_type": "glm4v",
            "text_config": {
                "head_dim": 128,
                "hidden_size": 4096,
                "intermediate_size": 13696,
                "max_position_embeddings": 32768,
                "model_type": "glm4v_text",
                "num_attention_heads": 32,
                "num_hidden_layers": 40,
                "num_key_value_heads": 2,
                "vocab_size": 151552,
            },
            "vision_config": {
                "depth": 24,
                "hidden_size": 1536,
                "image_size": 336,
                "intermediate_size": 13696,
                "model_type": "glm4v",
                "num_heads": 12,
                "out_hidden_size": 4096,
                "patch_size": 14,
                "spatial_merge_size": 2,
            },
        },
        "weights_bytes": 20585554944,
        "weights_from": "parameters",
        "source": (
            "https://github.com/huggingface/transformers/blob/05cd1ec14dbe16127778060fb68c34105873015c/src/transformers"
            "/models/glm4v/configuration_glm4v.py"
        ),
        "note": (
            "The architecture of GLM-4.1V-9B-Thinking by its README; the numbers are transformers' defaults for that "
            "model, not its own config.json, which was not at hand: check it with describe_models. Its model card says "
            "64k tokens of context, the default is 32768. 10,292,777,472 parameters of two bytes, counted with "
            "transformers 5.19."
        ),
    },
    "autoglm-phone-9b-multilingual": {
        "repositories": ["zai-org/AutoGLM-Phone-9B-Multilingual"],
        "config": {
            "architectures": ["Glm4vForConditionalGeneration"],
            "dtype": "bfloat16",
            "model_type": "glm4v",
            "text_config": {
                "head_dim": 128,
                "hidden_size": 4096,
                "intermediate_size": 13696,
                "max_position_embeddings": 32768,
                "model_type": "glm4v_text",
                "num_attention_heads": 32,
                "num_hidden_layers": 40,
                "num_key_value_heads": 2,
                "vocab_size": 151552,
            },
            "vision_config": {
                "depth": 24,
                "hidden_size": 1536,
                "image_size": 336,
                "intermediate_size": 13696,
                "model_type": "glm4v",
                "num_heads": 12,
                "out_hidden_size": 4096,
                "patch_size": 14,
                "spatial_merge_size": 2,
            },
        },
        "weights_bytes": 20585554944,
        "weights_from": "parameters",
        "source": (
            "https://github.com/huggingface/transformers/blob/05cd1ec14dbe16127778060fb68c34105873015c/src/transformers"
            "/models/glm4v/configuration_glm4v.py"
        ),
        "note": (
            "The architecture of GLM-4.1V-9B-Thinking by its README; the numbers are transformers' defaults for that "
            "model, not its own config.json, which was not at hand: check it with describe_models. Its model card says "
            "64k tokens of context, the default is 32768. 10,292,777,472 parameters of two bytes, counted with "
            "transformers 5.19."
        ),
    },
    "deepseek-r1": {
        "repositories": ["deepseek-ai/DeepSeek-R1"],
        "config": {
            "architectures": ["DeepseekV3ForCausalLM"],
            "attention_bias": False,
            "first_k_dense_replace": 3,
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "kv_lora_rank": 512,
            "max_position_embeddings": 163840,
            "model_type": "deepseek_v3",
            "moe_intermediate_size": 2048,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "num_attention_heads": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 61,
            "num_key_value_heads": 128,
            "num_nextn_predict_layers": 1,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "quantization_config": {
                "fmt": "e4m3",
                "quant_method": "fp8",
                "weight_block_size": [128, 128],
            },
            "rope_scaling": {
                "factor": 40,
                "original_max_position_embeddings": 4096,
                "type": "yarn",
            },
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "v_head_dim": 128,
            "vocab_size": 129280,
        },
        "weights_bytes": 688574839360,
        "weights_from": "parameters",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/deepseek-ai--DeepSeek-R1_config.json"
        ),
        "note": (
            "FP8 in blocks with 32-bit scales, embeddings and norms in 16 bits. The weights hold a layer that predicts "
            "further tokens; vLLM loads it only for speculative decoding, so it needs less than this."
        ),
    },
    "deepseek-v3": {
        "repositories": ["deepseek-ai/DeepSeek-V3"],
        "config": {
            "architectures": ["DeepseekV3ForCausalLM"],
            "attention_bias": False,
            "first_k_dense_replace": 3,
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "kv_lora_rank": 512,
            "max_position_embeddings": 163840,
            "model_type": "deepseek_v3",
            "moe_intermediate_size": 2048,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "num_attention_heads": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 61,
            "num_key_value_heads": 128,
            "num_nextn_predict_layers": 1,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "quantization_config": {
                "fmt": "e4m3",
                "quant_method": "fp8",
                "weight_block_size": [128, 128],
            },
            "rope_scaling": {
                "factor": 40,
                "original_max_position_embeddings": 4096,
                "type": "yarn",
            },
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "v_head_dim": 128,
            "vocab_size": 129280,
        },
        "weights_bytes": 688574839360,
        "weights_from": "parameters",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/deepseek-ai--DeepSeek-V3_config.json"
        ),
        "note": (
            "FP8 in blocks with 32-bit scales, embeddings and norms in 16 bits. The weights hold a layer that predicts "
            "further tokens; vLLM loads it only for speculative decoding, so it needs less than this."
        ),
    },
    "gemma-3-27b-it": {
        "repositories": ["google/gemma-3-27b-it", "google/gemma-3-27b-pt"],
        "config": {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "mm_tokens_per_image": 256,
            "model_type": "gemma3",
            "text_config": {
                "head_dim": 128,
                "hidden_size": 5376,
                "intermediate_size": 21504,
                "max_position_embeddings": 131072,
                "model_type": "gemma3_text",
                "num_attention_heads": 32,
                "num_hidden_layers": 62,
                "num_key_value_heads": 16,
                "rope_scaling": {
                    "factor": 8.0,
                    "rope_type": "linear",
                },
                "sliding_window": 1024,
                "sliding_window_pattern": 6,
                "vocab_size": 262208,
            },
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "vision_config": {
                "hidden_size": 1152,
                "image_size": 896,
                "intermediate_size": 4304,
                "model_type": "siglip_vision_model",
                "num_attention_heads": 16,
                "num_hidden_layers": 27,
                "patch_size": 14,
            },
        },
        "weights_bytes": 54864813280,
        "weights_from": "index",
        "source": "https://huggingface.co/quickstep3621/dippy-g1-20-1/blob/main/config.json",
        "note": (
            "A copy of the configuration. Vocabulary, context, tied embeddings and the pattern of the sliding window "
            "are not in it but transformers' defaults (Gemma3TextConfig). Five of six layers look back 1024 tokens "
            "only."
        ),
    },
    "glm-4.5-air": {
        "repositories": ["zai-org/GLM-4.5-Air"],
        "config": {
            "architectures": ["Glm4MoeForCausalLM"],
            "attention_bias": True,
            "first_k_dense_replace": 1,
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 10944,
            "max_position_embeddings": 131072,
            "model_type": "glm4_moe",
            "moe_intermediate_size": 1408,
            "n_routed_experts": 128,
            "n_shared_experts": 1,
            "num_attention_heads": 96,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 46,
            "num_key_value_heads": 8,
            "num_nextn_predict_layers": 1,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 151552,
        },
        "weights_bytes": 220937649664,
        "weights_from": "parameters",
        "source": "https://huggingface.co/PrimeIntellect/INTELLECT-3-Base/blob/main/config.json",
        "note": (
            "The configuration is that of GLM-4.5-Air-Base, which INTELLECT-3 begins with. 110,468,824,832 parameters "
            "of two bytes. The weights hold a layer that predicts further tokens; vLLM loads it only for speculative "
            "decoding, so it needs less than this."
        ),
    },
    "gpt-oss-20b": {
        "repositories": ["openai/gpt-oss-20b"],
        "config": {
            "architectures": ["GptOssForCausalLM"],
            "attention_bias": True,
            "head_dim": 64,
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "max_position_embeddings": 131072,
            "model_type": "gpt_oss",
            "num_attention_heads": 64,
            "num_experts_per_tok": 4,
            "num_hidden_layers": 24,
            "num_key_value_heads": 8,
            "num_local_experts": 32,
            "quantization_config": {
                "quant_method": "mxfp4",
            },
            "rope_scaling": {
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "rope_type": "yarn",
            },
            "sliding_window": 128,
            "sliding_window_pattern": 2,
            "tie_word_embeddings": False,
            "vocab_size": 201088,
        },
        "weights_bytes": 13761264768,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/openai--gpt-oss-20b_config.json"
        ),
        "note": "Every other layer looks back 128 tokens only. Experts in MXFP4, 4.25 bits a value.",
    },
    "gpt-oss-120b": {
        "repositories": ["openai/gpt-oss-120b"],
        "config": {
            "architectures": ["GptOssForCausalLM"],
            "attention_bias": True,
            "head_dim": 64,
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "max_position_embeddings": 131072,
            "model_type": "gpt_oss",
            "num_attention_heads": 64,
            "num_experts_per_tok": 4,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "num_local_experts": 128,
            "quantization_config": {
                "quant_method": "mxfp4",
            },
            "rope_scaling": {
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "rope_type": "yarn",
            },
            "sliding_window": 128,
            "sliding_window_pattern": 2,
            "tie_word_embeddings": False,
            "vocab_size": 201088,
        },
        "weights_bytes": 65248815744,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/openai--gpt-oss-120b_config.json"
        ),
        "note": "Every other layer looks back 128 tokens only. Experts in MXFP4, 4.25 bits a value.",
    },
    "llama-3.1-8b": {
        "repositories": [
            "meta-llama/Llama-3.1-8B",
            "meta-llama/Llama-3.1-8B-Instruct",
            "meta-llama/Meta-Llama-3.1-8B",
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
        ],
        "config": {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 131072,
            "model_type": "llama",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "rope_scaling": {
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 128256,
        },
        "weights_bytes": 16060522496,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/meta-llama--Meta-Llama-3.1-8B_config.json"
        ),
    },
    "llama-3.1-70b": {
        "repositories": [
            "meta-llama/Llama-3.1-70B",
            "meta-llama/Llama-3.1-70B-Instruct",
            "meta-llama/Meta-Llama-3.1-70B",
            "meta-llama/Meta-Llama-3.1-70B-Instruct",
        ],
        "config": {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "max_position_embeddings": 131072,
            "model_type": "llama",
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
            "num_key_value_heads": 8,
            "rope_scaling": {
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 128256,
        },
        "weights_bytes": 141107412992,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/meta-llama--Meta-Llama-3.1-70B_config.json"
        ),
    },
    "llama-3.1-405b": {
        "repositories": [
            "meta-llama/Llama-3.1-405B",
            "meta-llama/Llama-3.1-405B-Instruct",
            "meta-llama/Meta-Llama-3.1-405B",
            "meta-llama/Meta-Llama-3.1-405B-Instruct",
        ],
        "config": {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "hidden_size": 16384,
            "intermediate_size": 53248,
            "max_position_embeddings": 131072,
            "model_type": "llama",
            "num_attention_heads": 128,
            "num_hidden_layers": 126,
            "num_key_value_heads": 8,
            "rope_scaling": {
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 128256,
        },
        "weights_bytes": 811706777600,
        "weights_from": "parameters",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/meta-llama--Meta-Llama-3.1-405B_config.json"
        ),
    },
    "llama-3.3-70b-instruct": {
        "repositories": ["meta-llama/Llama-3.3-70B-Instruct"],
        "config": {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "head_dim": 128,
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "max_position_embeddings": 131072,
            "model_type": "llama",
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
            "num_key_value_heads": 8,
            "rope_scaling": {
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 128256,
        },
        "weights_bytes": 141107412992,
        "weights_from": "parameters",
        "source": (
            "https://huggingface.co/relaxml/Llama-3.3-70B-Instruct-QTIP-3Bit/commit/d9f5da3eb82d0f86a19bb736a503ceb6bdd"
            "54fe4"
        ),
        "note": (
            "A quantized copy's configuration without its quantization; vocabulary and rope as in Llama 3.1 70B, whose "
            "shape it has."
        ),
    },
    "mistral-7b-v0.3": {
        "repositories": ["mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"],
        "config": {
            "architectures": ["MistralForCausalLM"],
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 32768,
        },
        "weights_bytes": 14496047104,
        "weights_from": "index",
        "source": (
            "https://github.com/mlc-ai/mlc-llm/blob/01ced331a9e155c5ba4e7625b027a51bee611450/python/mlc_llm/model/model"
            "_preset.py"
        ),
    },
    "mistral-small-24b-2501": {
        "repositories": ["mistralai/Mistral-Small-24B-Base-2501", "mistralai/Mistral-Small-24B-Instruct-2501"],
        "config": {
            "architectures": ["MistralForCausalLM"],
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 32768,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "num_attention_heads": 32,
            "num_hidden_layers": 40,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 131072,
        },
        "weights_bytes": 47144806400,
        "weights_from": "parameters",
        "source": (
            "https://huggingface.co/estrogen/Mistral-Small-24b-Sertraline-0304-eval-template/blob/d89dfd85de85ff027a476"
            "d4a2130702d62bab20b/config.json"
        ),
        "note": (
            "The configuration of a model made from Mistral-Small-24B-Base-2501. 23,572,403,200 parameters of two "
            "bytes."
        ),
    },
    "mixtral-8x7b": {
        "repositories": ["mistralai/Mixtral-8x7B-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1"],
        "config": {
            "architectures": ["MixtralForCausalLM"],
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mixtral",
            "num_attention_heads": 32,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 32000,
        },
        "weights_bytes": 93405585408,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/mistralai--Mixtral-8x7B-v0.1_config.json"
        ),
    },
    "phi-4": {
        "repositories": ["microsoft/phi-4"],
        "config": {
            "architectures": ["Phi3ForCausalLM"],
            "hidden_size": 5120,
            "intermediate_size": 17920,
            "max_position_embeddings": 16384,
            "model_type": "phi3",
            "num_attention_heads": 40,
            "num_hidden_layers": 40,
            "num_key_value_heads": 10,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 100352,
        },
        "weights_bytes": 29319014400,
        "weights_from": "index",
        "source": "https://huggingface.co/microsoft/phi-4/blob/refs%2Fpr%2F10/config.json",
    },
    "qwen2.5-7b-instruct": {
        "repositories": ["Qwen/Qwen2.5-7B-Instruct"],
        "config": {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "max_position_embeddings": 32768,
            "model_type": "qwen2",
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 152064,
        },
        "weights_bytes": 15231233024,
        "weights_from": "index",
        "source": "https://huggingface.co/osllmai-community/Qwen2.5-7B-Instruct/blob/main/config.json",
        "note": "A copy of the configuration.",
    },
    "qwen2.5-72b-instruct": {
        "repositories": ["Qwen/Qwen2.5-72B-Instruct"],
        "config": {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 8192,
            "intermediate_size": 29568,
            "max_position_embeddings": 32768,
            "model_type": "qwen2",
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 152064,
        },
        "weights_bytes": 145412407296,
        "weights_from": "index",
        "source": "https://huggingface.co/OPEA/Qwen2.5-72B-Instruct-int4-sym-inc/blame/main/config.json",
        "note": "A quantized copy's configuration without its quantization.",
    },
    "qwen2.5-vl-7b-instruct": {
        "repositories": ["Qwen/Qwen2.5-VL-7B-Instruct"],
        "config": {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "max_position_embeddings": 128000,
            "model_type": "qwen2_5_vl",
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "model_type": "qwen2_5_vl",
                "num_heads": 16,
                "out_hidden_size": 3584,
                "patch_size": 14,
                "spatial_merge_size": 2,
            },
            "vocab_size": 152064,
        },
        "weights_bytes": 16584333312,
        "weights_from": "index",
        "source": "https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct-AWQ/blame/main/config.json",
        "note": (
            "The configuration of its AWQ version without the quantization; what vision_config leaves out there are "
            "transformers' defaults (Qwen2_5_VLVisionConfig)."
        ),
    },
    "qwen3-8b": {
        "repositories": ["Qwen/Qwen3-8B"],
        "config": {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "max_position_embeddings": 40960,
            "max_window_layers": 36,
            "model_type": "qwen3",
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        "weights_bytes": 16381470720,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/Qwen--Qwen3-8B_config.json"
        ),
    },
    "qwen3-30b-a3b": {
        "repositories": ["Qwen/Qwen3-30B-A3B"],
        "config": {
            "architectures": ["Qwen3MoeForCausalLM"],
            "attention_bias": False,
            "head_dim": 128,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "max_position_embeddings": 40960,
            "max_window_layers": 48,
            "model_type": "qwen3_moe",
            "moe_intermediate_size": 768,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        "weights_bytes": 61064245248,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/Qwen--Qwen3-30B-A3B_config.json"
        ),
    },
    "qwen3-32b": {
        "repositories": ["Qwen/Qwen3-32B"],
        "config": {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 25600,
            "max_position_embeddings": 40960,
            "max_window_layers": 64,
            "model_type": "qwen3",
            "num_attention_heads": 64,
            "num_hidden_layers": 64,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        "weights_bytes": 65524246528,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/Qwen--Qwen3-32B_config.json"
        ),
    },
    "qwen3-32b-fp8": {
        "repositories": ["Qwen/Qwen3-32B-FP8"],
        "config": {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 25600,
            "max_position_embeddings": 40960,
            "max_window_layers": 64,
            "model_type": "qwen3",
            "num_attention_heads": 64,
            "num_hidden_layers": 64,
            "num_key_value_heads": 8,
            "quantization_config": {
                "fmt": "e4m3",
                "quant_method": "fp8",
                "weight_block_size": [128, 128],
            },
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        "weights_bytes": 34322434048,
        "weights_from": "parameters",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/Qwen--Qwen3-32B-FP8_config.json"
        ),
        "note": "FP8 in blocks with 16-bit scales; embeddings, output layer and norms in 16 bits.",
    },
    "qwen3-235b-a22b": {
        "repositories": ["Qwen/Qwen3-235B-A22B"],
        "config": {
            "architectures": ["Qwen3MoeForCausalLM"],
            "attention_bias": False,
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "max_position_embeddings": 40960,
            "max_window_layers": 94,
            "model_type": "qwen3_moe",
            "moe_intermediate_size": 1536,
            "num_attention_heads": 64,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 94,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        "weights_bytes": 470187269120,
        "weights_from": "index",
        "source": (
            "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a51c4ca8e61b66ec108d86f223f8d559ce/aic-core/src/aic"
            "onfigurator_core/model_configs/Qwen--Qwen3-235B-A22B_config.json"
        ),
    },
}
