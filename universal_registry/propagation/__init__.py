"""Who gets what, and how it gets there: `routing` decides, `lanes` has the rules, `engine` runs them; `verbs` and
`views` are what people say and are told, `control` is their door. docs/architecture.md has the map."""
