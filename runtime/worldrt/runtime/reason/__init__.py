"""Vision-language models that look at prompts and videos: a critic that scores, a refiner that writes anew."""
