accelerate launch train_network.py --pretrained_model_name_or_path=pocket \
  --train_data_dir=my-lora/train --reg_data_dir=my-lora/reg --network_module=networks.lora --network_dim=8 \
  --prior_loss_weight=0.5 --max_train_steps=100 --train_batch_size=2 --caption_extension=.txt --learning_rate=1e-4
