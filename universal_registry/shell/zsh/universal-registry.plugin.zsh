# Universal Registry in zsh: makes the functions of docs/reference/zsh.md known, each read when it is first called.
# Sourced by a plugin manager, by the files at the root of a checkout, or by hand; twice does no harm.
#
# What it leaves in the shell: the functions, a folder of completions in fpath, and one parameter, `_universal_registry`.
# `universal-registry_plugin_unload` takes all of it back.

() {
  emulate -L zsh
  local folder=$1
  local -a names
  if (( ${+_universal_registry} )); then
    [[ $_universal_registry[folder] != $folder ]] || return 0
    universal-registry_plugin_unload
  fi
  names=($folder/functions/*(N))
  # zsh reads and runs them under its own options, whatever those of the user are.
  emulate zsh -c 'autoload -Uz -- $names'
  names=(${names:t})
  typeset -gA _universal_registry
  _universal_registry=(folder $folder root ${folder:h:h:h} functions "$names")
  fpath=($folder/completions $fpath)
  (( ! ${+functions[compdef]} )) || _universal_registry_completion
} "${${(%):-%x}:A:h}"
