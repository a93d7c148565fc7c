module watch_reader

go 1.24
