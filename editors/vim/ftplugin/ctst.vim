" `gq` lays out, `:make` checks and fills the quickfix list.
setlocal commentstring=//\ %s comments=:// shiftwidth=4 expandtab
setlocal formatprg=ctst\ fmt\ -
setlocal makeprg=ctst\ check\ %
" What is wrong stands on one line and its place on the next; notes and help follow.
setlocal errorformat=%E%trror[%*[^]]]:\ %m,%W%tarning[%*[^]]]:\ %m,%Z\ %#-->\ %f:%l:%c,%-G%.%#
