"""Sources fetch what hllm does not carry: data sets, language models, and the sizes of known ones."""
