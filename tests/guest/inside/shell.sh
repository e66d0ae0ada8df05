# What an interactive shell in the guest reads first (ENV).
poweroff() { exit; }
PS1='guest:\w# '
cd /mnt
