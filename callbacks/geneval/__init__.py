"""GenEval: objects, numbers, colours and places of what prompts ask for, by an object detector."""
