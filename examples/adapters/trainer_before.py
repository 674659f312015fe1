"""A Trainer that fits LoRA adapters to a transformer. Run with python -m from the checkout."""

import tempfile

from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from examples.adapters import digits

size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
config = BertConfig(vocab_size=17, max_position_embeddings=64, num_labels=10, **size)
lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
model = get_peft_model(BertForSequenceClassification(config), lora)
args = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    num_train_epochs=1,
    per_device_train_batch_size=32,
    learning_rate=5e-3,
    use_cpu=True,
    report_to="none",
    disable_tqdm=True,
)
trainer = Trainer(model, args, train_dataset=digits.TEXTS)
trainer.train()
print(f"loss {trainer.evaluate(digits.TEST_TEXTS)['eval_loss']:.3f}")
