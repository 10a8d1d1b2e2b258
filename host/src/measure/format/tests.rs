use expect_test::expect;

use super::*;
use crate::measure::tests::{cell, decode, origin, prefill};
use crate::measure::{Failure, Status};

fn written(format: Format, shown: Vec<&'static str>, rows: &[Row]) -> String {
    let mut output = Vec::new();
    let mut printer = Printer::new(format, shown, &mut output);
    rows.iter().for_each(|row| printer.row(row).unwrap());
    printer.finish().unwrap();
    String::from_utf8(output).unwrap()
}

#[test]
fn names_are_read_as_they_are_written() {
    for (format, name) in NAMES {
        assert_eq!(name.parse(), Ok(format));
        assert_eq!(format.to_string(), name);
    }
    let message = "xml".parse::<Format>().unwrap_err();
    assert!(message.contains("xml") && message.contains("md, csv, json, jsonl, sql"), "{message}");
}

#[test]
fn a_table_for_people() {
    expect![[r#"
        | model                          | type         | size MiB | threads |               test |                t/s | first token ms | token ms p50 / p95 / p99 | peak MiB | roofline % |
        | ------------------------------ | ------------ | -------: | ------: | -----------------: | -----------------: | -------------: | -----------------------: | -------: | ---------: |
        | it's/lfm2.onnx                 | lfm2 q4      |      3.0 |       2 |              pp512 |             512.00 |        1010.00 |                          |     90.0 |            |
        | it's/lfm2.onnx                 | lfm2 q4      |      3.0 |       2 |           tg4 @ d9 |        9.00 ± 1.41 |                | 112.50 / 125.00 / 125.00 |     90.0 |       92.0 |

        lfm2-host 0.1.0 (abc1234), ONNX Runtime 1.32.0, Some "fast" CPU, 2 GHz, 2 cores, Linux
    "#]].assert_eq(&written(Format::Markdown, vec![], &[prefill(), decode()]));
    expect![[r#"
        | model                          | type         | size MiB | threads | chunk | kv |               test |                t/s | first token ms | token ms p50 / p95 / p99 | peak MiB | roofline % |
        | ------------------------------ | ------------ | -------: | ------: | ----: | -: | -----------------: | -----------------: | -------------: | -----------------------: | -------: | ---------: |
        | it's/lfm2.onnx                 | lfm2 q4      |      3.0 |       2 |   512 | float16 |           tg4 @ d9 |        9.00 ± 1.41 |                | 112.50 / 125.00 / 125.00 |     90.0 |       92.0 |

        lfm2-host 0.1.0 (abc1234), ONNX Runtime 1.32.0, Some "fast" CPU, 2 GHz, 2 cores, Linux
    "#]].assert_eq(&written(Format::Markdown, vec!["chunk", "kv"], &[decode()]));
}

#[test]
fn a_table_says_what_failed_and_which_runtime_the_others_had() {
    let failure = Failure::new(Status::Timeout, "its process took more than 5 seconds and was ended");
    let mut failed = origin(|origin| Row::failed(origin, &cell(), &failure));
    failed.program.runtime_version = None;
    let table = written(Format::Markdown, vec!["provider"], &[failed.clone(), decode(), failed]);
    assert_eq!(table.matches(" timeout |").count(), 2, "{table}");
    assert!(table.contains("ONNX Runtime 1.32.0"), "{table}");
}

#[test]
fn comma_separated_values() {
    expect![[r#"
        build_commit,build_version,build_optimized,runtime_version,runtime_sha256,cpu_info,cpu_cores,cpu_threads,memory_bytes,os,kernel,arch,governor,power_source,model_filename,model_type,model_size,model_sha256,weights_sha256,model_files,model_verified,weight_bytes,precision,dialect,device,form_factor,plan,model_name,test_name,cell,provider,provider_options,provider_device,n_threads,spinning,low_memory,chunk,prefill,speculate,kv,n_prompt,n_gen,n_depth,repetitions,seed,test_time,status,error,avg_ns,stddev_ns,median_ns,avg_ts,stddev_ts,median_ts,first_token_avg_ns,first_token_median_ns,inter_token_p50_ns,inter_token_p95_ns,inter_token_p99_ns,host_percent,runs_per_token,load_ns,session_ns,first_run_ns,session_with_compiling_ns,cache_hit,placement,peak_memory,peak_run_memory,device_memory,state_bytes,read_bandwidth,bytes_per_token,roofline_tokens_per_second,roofline_percent,reference,reference_precision,agreement_tokens,top1_agreement,mean_kld
        "abc1234","0.1.0","true","1.32.0","aa","Some ""fast"" CPU, 2 GHz","2","4","17179869184","Linux","6.1","x86_64","performance","mains","it's/lfm2.onnx","lfm2 q4","3145728","bb","cc","[{""name"":""it's/lfm2.onnx"",""role"":""graph"",""size"":1048576,""sha256"":""bb""},{""name"":""it's/lfm2.onnx_data"",""role"":""data"",""size"":2097152,""sha256"":""cc""}]","false","1000","q4","contrib","desk","desktop","","","","1f8d250dabb5452b","cpu","{}","CPU (AuthenticAMD)","2","true","false","512","q4","0","float16","512","0","0","1","0","2026-01-02T03:04:05Z","ok","","1000000000","","1000000000","512.0","","512.0","1010000000","1010000000","","","","0.1","","300000000","200000000","20000000","","","{""CPUExecutionProvider"":412}","94371840","83886080","","32800","","","","","","","","",""
        "abc1234","0.1.0","true","1.32.0","aa","Some ""fast"" CPU, 2 GHz","2","4","17179869184","Linux","6.1","x86_64","performance","mains","it's/lfm2.onnx","lfm2 q4","3145728","bb","cc","[{""name"":""it's/lfm2.onnx"",""role"":""graph"",""size"":1048576,""sha256"":""bb""},{""name"":""it's/lfm2.onnx_data"",""role"":""data"",""size"":2097152,""sha256"":""cc""}]","false","1000","q4","contrib","desk","desktop","","","","16e839d3689039bc","cpu","{}","CPU (AuthenticAMD)","2","true","false","512","q4","0","float16","0","4","9","2","0","2026-01-02T03:04:05Z","ok","","450000000","70710678","450000000","9.0","1.4142135623730951","9.0","","","112500000","125000000","125000000","2.6666666666666665","1.0","300000000","200000000","20000000","","","{""CPUExecutionProvider"":412}","94371840","83886080","","928","17920.0","1832.0","9.781659388646288","92.00892857142857","exact/lfm2.onnx","fp32","252","0.875","0.03125"
    "#]].assert_eq(&written(Format::Csv, vec![], &[prefill(), decode()]));
}

#[test]
fn statements() {
    expect![[r#"
        CREATE TABLE IF NOT EXISTS lfm2_bench (
          build_commit TEXT,
          build_version TEXT,
          build_optimized INTEGER,
          runtime_version TEXT,
          runtime_sha256 TEXT,
          cpu_info TEXT,
          cpu_cores INTEGER,
          cpu_threads INTEGER,
          memory_bytes INTEGER,
          os TEXT,
          kernel TEXT,
          arch TEXT,
          governor TEXT,
          power_source TEXT,
          model_filename TEXT,
          model_type TEXT,
          model_size INTEGER,
          model_sha256 TEXT,
          weights_sha256 TEXT,
          model_files TEXT,
          model_verified INTEGER,
          weight_bytes INTEGER,
          precision TEXT,
          dialect TEXT,
          device TEXT,
          form_factor TEXT,
          plan TEXT,
          model_name TEXT,
          test_name TEXT,
          cell TEXT,
          provider TEXT,
          provider_options TEXT,
          provider_device TEXT,
          n_threads INTEGER,
          spinning INTEGER,
          low_memory INTEGER,
          chunk INTEGER,
          prefill TEXT,
          speculate INTEGER,
          kv TEXT,
          n_prompt INTEGER,
          n_gen INTEGER,
          n_depth INTEGER,
          repetitions INTEGER,
          seed INTEGER,
          test_time TEXT,
          status TEXT,
          error TEXT,
          avg_ns INTEGER,
          stddev_ns INTEGER,
          median_ns INTEGER,
          avg_ts REAL,
          stddev_ts REAL,
          median_ts REAL,
          first_token_avg_ns INTEGER,
          first_token_median_ns INTEGER,
          inter_token_p50_ns INTEGER,
          inter_token_p95_ns INTEGER,
          inter_token_p99_ns INTEGER,
          host_percent REAL,
          runs_per_token REAL,
          load_ns INTEGER,
          session_ns INTEGER,
          first_run_ns INTEGER,
          session_with_compiling_ns INTEGER,
          cache_hit INTEGER,
          placement TEXT,
          peak_memory INTEGER,
          peak_run_memory INTEGER,
          device_memory INTEGER,
          state_bytes INTEGER,
          read_bandwidth REAL,
          bytes_per_token REAL,
          roofline_tokens_per_second REAL,
          roofline_percent REAL,
          reference TEXT,
          reference_precision TEXT,
          agreement_tokens INTEGER,
          top1_agreement REAL,
          mean_kld REAL
        );

        INSERT INTO lfm2_bench (build_commit, build_version, build_optimized, runtime_version, runtime_sha256, cpu_info, cpu_cores, cpu_threads, memory_bytes, os, kernel, arch, governor, power_source, model_filename, model_type, model_size, model_sha256, weights_sha256, model_files, model_verified, weight_bytes, precision, dialect, device, form_factor, plan, model_name, test_name, cell, provider, provider_options, provider_device, n_threads, spinning, low_memory, chunk, prefill, speculate, kv, n_prompt, n_gen, n_depth, repetitions, seed, test_time, status, error, avg_ns, stddev_ns, median_ns, avg_ts, stddev_ts, median_ts, first_token_avg_ns, first_token_median_ns, inter_token_p50_ns, inter_token_p95_ns, inter_token_p99_ns, host_percent, runs_per_token, load_ns, session_ns, first_run_ns, session_with_compiling_ns, cache_hit, placement, peak_memory, peak_run_memory, device_memory, state_bytes, read_bandwidth, bytes_per_token, roofline_tokens_per_second, roofline_percent, reference, reference_precision, agreement_tokens, top1_agreement, mean_kld) VALUES ('abc1234', '0.1.0', 1, '1.32.0', 'aa', 'Some "fast" CPU, 2 GHz', 2, 4, 17179869184, 'Linux', '6.1', 'x86_64', 'performance', 'mains', 'it''s/lfm2.onnx', 'lfm2 q4', 3145728, 'bb', 'cc', '[{"name":"it''s/lfm2.onnx","role":"graph","size":1048576,"sha256":"bb"},{"name":"it''s/lfm2.onnx_data","role":"data","size":2097152,"sha256":"cc"}]', 0, 1000, 'q4', 'contrib', 'desk', 'desktop', NULL, NULL, NULL, '16e839d3689039bc', 'cpu', '{}', 'CPU (AuthenticAMD)', 2, 1, 0, 512, 'q4', 0, 'float16', 0, 4, 9, 2, 0, '2026-01-02T03:04:05Z', 'ok', NULL, 450000000, 70710678, 450000000, 9.0, 1.4142135623730951, 9.0, NULL, NULL, 112500000, 125000000, 125000000, 2.6666666666666665, 1.0, 300000000, 200000000, 20000000, NULL, NULL, '{"CPUExecutionProvider":412}', 94371840, 83886080, NULL, 928, 17920.0, 1832.0, 9.781659388646288, 92.00892857142857, 'exact/lfm2.onnx', 'fp32', 252, 0.875, 0.03125);
        INSERT INTO lfm2_bench (build_commit, build_version, build_optimized, runtime_version, runtime_sha256, cpu_info, cpu_cores, cpu_threads, memory_bytes, os, kernel, arch, governor, power_source, model_filename, model_type, model_size, model_sha256, weights_sha256, model_files, model_verified, weight_bytes, precision, dialect, device, form_factor, plan, model_name, test_name, cell, provider, provider_options, provider_device, n_threads, spinning, low_memory, chunk, prefill, speculate, kv, n_prompt, n_gen, n_depth, repetitions, seed, test_time, status, error, avg_ns, stddev_ns, median_ns, avg_ts, stddev_ts, median_ts, first_token_avg_ns, first_token_median_ns, inter_token_p50_ns, inter_token_p95_ns, inter_token_p99_ns, host_percent, runs_per_token, load_ns, session_ns, first_run_ns, session_with_compiling_ns, cache_hit, placement, peak_memory, peak_run_memory, device_memory, state_bytes, read_bandwidth, bytes_per_token, roofline_tokens_per_second, roofline_percent, reference, reference_precision, agreement_tokens, top1_agreement, mean_kld) VALUES ('abc1234', '0.1.0', 1, '1.32.0', 'aa', 'Some "fast" CPU, 2 GHz', 2, 4, 17179869184, 'Linux', '6.1', 'x86_64', 'performance', 'mains', 'it''s/lfm2.onnx', 'lfm2 q4', 3145728, 'bb', 'cc', '[{"name":"it''s/lfm2.onnx","role":"graph","size":1048576,"sha256":"bb"},{"name":"it''s/lfm2.onnx_data","role":"data","size":2097152,"sha256":"cc"}]', 0, 1000, 'q4', 'contrib', 'desk', 'desktop', NULL, NULL, NULL, '16e839d3689039bc', 'cpu', '{}', 'CPU (AuthenticAMD)', 2, 1, 0, 512, 'q4', 0, 'float16', 0, 4, 9, 2, 0, '2026-01-02T03:04:05Z', 'ok', NULL, 450000000, 70710678, 450000000, 9.0, 1.4142135623730951, 9.0, NULL, NULL, 112500000, 125000000, 125000000, 2.6666666666666665, 1.0, 300000000, 200000000, 20000000, NULL, NULL, '{"CPUExecutionProvider":412}', 94371840, 83886080, NULL, 928, 17920.0, 1832.0, 9.781659388646288, 92.00892857142857, 'exact/lfm2.onnx', 'fp32', 252, 0.875, 0.03125);
    "#]].assert_eq(&written(Format::Sql, vec![], &[decode(), decode()]));
}

#[test]
fn json_has_everything() {
    expect![[r#"
        [
          {
            "build_commit": "abc1234",
            "build_version": "0.1.0",
            "build_optimized": true,
            "runtime_version": "1.32.0",
            "runtime_sha256": "aa",
            "cpu_info": "Some \"fast\" CPU, 2 GHz",
            "cpu_cores": 2,
            "cpu_threads": 4,
            "memory_bytes": 17179869184,
            "os": "Linux",
            "kernel": "6.1",
            "arch": "x86_64",
            "governor": "performance",
            "power_source": "mains",
            "model_filename": "it's/lfm2.onnx",
            "model_type": "lfm2 q4",
            "model_size": 3145728,
            "model_sha256": "bb",
            "weights_sha256": "cc",
            "model_files": [{"name":"it's/lfm2.onnx","role":"graph","size":1048576,"sha256":"bb"},{"name":"it's/lfm2.onnx_data","role":"data","size":2097152,"sha256":"cc"}],
            "model_verified": false,
            "weight_bytes": 1000,
            "precision": "q4",
            "dialect": "contrib",
            "device": "desk",
            "form_factor": "desktop",
            "plan": null,
            "model_name": null,
            "test_name": null,
            "cell": "16e839d3689039bc",
            "provider": "cpu",
            "provider_options": {},
            "provider_device": "CPU (AuthenticAMD)",
            "n_threads": 2,
            "spinning": true,
            "low_memory": false,
            "chunk": 512,
            "prefill": "q4",
            "speculate": 0,
            "kv": "float16",
            "n_prompt": 0,
            "n_gen": 4,
            "n_depth": 9,
            "repetitions": 2,
            "seed": 0,
            "test_time": "2026-01-02T03:04:05Z",
            "status": "ok",
            "error": null,
            "avg_ns": 450000000,
            "stddev_ns": 70710678,
            "median_ns": 450000000,
            "avg_ts": 9.0,
            "stddev_ts": 1.4142135623730951,
            "median_ts": 9.0,
            "first_token_avg_ns": null,
            "first_token_median_ns": null,
            "inter_token_p50_ns": 112500000,
            "inter_token_p95_ns": 125000000,
            "inter_token_p99_ns": 125000000,
            "host_percent": 2.6666666666666665,
            "runs_per_token": 1.0,
            "load_ns": 300000000,
            "session_ns": 200000000,
            "first_run_ns": 20000000,
            "session_with_compiling_ns": null,
            "cache_hit": null,
            "placement": {"CPUExecutionProvider":412},
            "peak_memory": 94371840,
            "peak_run_memory": 83886080,
            "device_memory": null,
            "state_bytes": 928,
            "read_bandwidth": 17920.0,
            "bytes_per_token": 1832.0,
            "roofline_tokens_per_second": 9.781659388646288,
            "roofline_percent": 92.00892857142857,
            "reference": "exact/lfm2.onnx",
            "reference_precision": "fp32",
            "agreement_tokens": 252,
            "top1_agreement": 0.875,
            "mean_kld": 0.03125,
            "thermal_before": [{"zone":0,"type":"cpu-thermal","celsius":41.5}],
            "thermal_after": [{"zone":0,"type":"cpu-thermal","celsius":52.0}],
            "frequency_before": [3000000000,2000000000],
            "frequency_after": null,
            "samples_ns": [400000000,500000000],
            "samples_ts": [10.0,8.0],
            "first_token_samples_ns": [],
            "inter_token_samples_ns": [100000000,100000000,100000000,100000000,125000000,125000000,125000000,125000000]
          }
        ]
    "#]]
    .assert_eq(&written(Format::Json, vec![], &[decode()]));
}

#[test]
fn json_can_be_read_whatever_the_number_of_rows() {
    for count in 0..3 {
        let rows = vec![decode(); count];
        let array: Vec<Value> = serde_json::from_str(&written(Format::Json, vec![], &rows)).unwrap();
        let lines = written(Format::JsonLines, vec![], &rows);
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((array.len(), &array), (count, &lines));
    }
}

#[test]
fn nothing_is_written_without_rows() {
    for format in [Format::Markdown, Format::Csv, Format::JsonLines, Format::Sql] {
        assert_eq!(written(format, vec![], &[]), "");
    }
}
