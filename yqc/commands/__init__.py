"""The commands, one function each; none imports torch before it runs.

`process`    signals and streams of the process
`group`      a hint where the name of a command is wrong
`help_json`  the help of all commands as JSON
`completing` what a shell completes: passes and targets
`arguments`  options that several commands share
`common`     find passes, print
`compiling`  `yqc compile`
`tuning`     `yqc tune`
`sweeping`   `yqc sweep`
`comparing`  `yqc compare`
`looking`    `yqc passes`, `inspect`, `diff`, `explain`, `new-pass`
`listing`    the data of `yqc passes`
`views`      the work of `inspect`, `diff` and `explain`; imports torch
`measuring`  `yqc eval`, `bench`, `replay`
`linting`    `yqc lint`
`caching`    `yqc cache`
"""
