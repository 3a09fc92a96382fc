"""The commands, one function each; none imports torch before it runs.

`process`    signals and streams of the process
`arguments`  options that several commands share
`common`     find passes, print
`compiling`  `yqc compile`
`tuning`     `yqc tune`
`comparing`  `yqc compare`
`looking`    `yqc passes`, `inspect`, `diff`, `explain`, `new-pass`
`listing`    the data of `yqc passes`
`views`      the work of `inspect`, `diff` and `explain`; imports torch
`measuring`  `yqc eval`, `bench`, `replay`
`linting`    `yqc lint`
`caching`    `yqc cache`
"""
