# Universal Registry in zsh: `source universal_registry_integration.zsh`, from any folder and through symlinks.
# The functions are those of docs/reference/zsh.md; the propagation part is sourced from beside this file.

builtin source "${${(%):-%x}:A:h}/universal_registry/shell/zsh/universal-registry.plugin.zsh" || return
builtin source "${${(%):-%x}:A:h}/registry_propagation_nexus.zsh"
