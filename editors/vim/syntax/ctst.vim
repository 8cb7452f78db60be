" Vim syntax file for the Containust composition language.
if exists("b:current_syntax")
  finish
endif

syntax case match
" Matches, not keywords: a keyword can be the key of a map.
syntax match ctstKeyword "\<\(IMPORT\|AS\|COMPONENT\|FROM\|CONNECT\|EXPOSE\)\>"
syntax match ctstReserved "\<\(HEALTHCHECK\|RESTART\|NETWORK\|SECRET\)\>"
syntax match ctstBoolean "\<\(true\|false\)\>"
syntax match ctstNumber "\<\d\+\>"
syntax match ctstArrow "->"
syntax match ctstProtocol "/\(tcp\|udp\)\>"
syntax match ctstKey "\<[A-Za-z][A-Za-z0-9_-]*\ze\s*="
syntax match ctstProperty "\<\(required_params\|capabilities\|stop_timeout\|healthcheck\|stop_signal\|distroless\|entrypoint\|io_weight\|io_max\|env_file\|hostname\|readonly\|template\|command\|include\|network\|restart\|seccomp\|volumes\|workdir\|labels\|memory\|userns\|volume\|image\|ports\|tmpfs\|cpus\|init\|lazy\|live\|pids\|port\|user\|cpu\|env\)\ze\s*="
syntax match ctstWrongComment "#.*$"
syntax match ctstComment "//.*$" contains=@Spell
syntax region ctstString start=+"+ skip=+\\.+ end=+"+ oneline contains=ctstEscape,ctstInterpolation,@Spell
syntax match ctstInterpolation +\${\([^}"\\]\|\\.\)*}+ contained
syntax match ctstEscape +\\\(["\\ntr]\|u{\x\+}\)+ contained
syntax match ctstEscape +\$\${+ contained

highlight default link ctstKeyword Statement
highlight default link ctstReserved Error
highlight default link ctstBoolean Boolean
highlight default link ctstNumber Number
highlight default link ctstArrow Operator
highlight default link ctstProtocol Constant
highlight default link ctstKey Identifier
highlight default link ctstProperty Type
highlight default link ctstComment Comment
highlight default link ctstWrongComment Error
highlight default link ctstString String
highlight default link ctstEscape SpecialChar
highlight default link ctstInterpolation PreProc

let b:current_syntax = "ctst"
