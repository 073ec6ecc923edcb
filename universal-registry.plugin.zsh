# For zsh plugin managers, which source this file of a clone.

builtin source "${${(%):-%x}:A:h}/universal_registry_integration.zsh"
