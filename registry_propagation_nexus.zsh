# The propagation and studio functions of Universal Registry in zsh. They need those of the registry, and bring them:
# the functions of both come from one folder, and are read when they are first called.

builtin source "${${(%):-%x}:A:h}/universal_registry/shell/zsh/universal-registry.plugin.zsh"
