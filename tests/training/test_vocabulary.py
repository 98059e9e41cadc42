from __future__ import annotations

from reid_zoo.training.vocabulary import learn_wordpiece_tokenizer

CAPTIONS = ["A woman wears a red jacket.", "The woman has a red jacket and Café-brown shoes.", "woman"]


def test_frequent_words_are_one_piece_and_others_are_spelled():
    tokenizer = learn_wordpiece_tokenizer(CAPTIONS)
    assert tokenizer.tokenize("Woman, red jackets") == ["woman", ",", "red", "jacket", "##s"]
    assert tokenizer.tokenize("hat") == ["h", "##a", "##t"]
    assert tokenizer.unk_token not in tokenizer.tokenize("a CAFÉ 42's")
    assert tokenizer.tokenize("红") == [tokenizer.unk_token]


def test_the_same_captions_give_the_same_vocabulary_and_its_size_is_limited():
    vocabulary = learn_wordpiece_tokenizer(CAPTIONS).get_vocab()
    assert learn_wordpiece_tokenizer(list(CAPTIONS)).get_vocab() == vocabulary
    assert len(learn_wordpiece_tokenizer(CAPTIONS, vocabulary_size=88).get_vocab()) == 88
    assert vocabulary["[PAD]"] == 0


def test_special_tokens_frame_a_sentence():
    tokenizer = learn_wordpiece_tokenizer(CAPTIONS)
    ids = tokenizer("red")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "red", "[SEP]"]
