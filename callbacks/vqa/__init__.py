"""Parts of VQA accuracy: questions, normalisation and scores of answers, the blind baseline."""
