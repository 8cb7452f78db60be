autocmd BufNewFile,BufRead *.ctst setfiletype ctst
