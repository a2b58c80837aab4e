accelerate launch train_dreambooth_lora.py --pretrained_model_name_or_path=pocket \
  --instance_data_dir=uncaptioned --class_data_dir=my-lora/reg/1_1girl --instance_prompt="vexlum 1girl" \
  --class_prompt="1girl" --with_prior_preservation --num_class_images=8 --rank=8 --learning_rate=1e-4 --max_train_steps=100
