" `gq` lays out, `:make` checks and fills the quickfix list.
setlocal commentstring=//\ %s comments=:// shiftwidth=4 expandtab
setlocal formatprg=ctst\ fmt\ -
setlocal makeprg=ctst\ check\ %
setlocal errorformat=%trror[%*[^]]]:\ %m,%tarning[%*[^]]]:\ %m,%-G%.%#
