module cafe

go 1.21
