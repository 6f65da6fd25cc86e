module weir.invalid/test/tools/workload

go 1.26.8
