"""The benchmark's jobs in Spark, local[2]: spark.py wordcount DIRECTORY | spark.py sort FILE OUTPUT.

Prints the seconds of the job, without the start of the session, and waits for its standard input to end, so that the
memory of its processes can be read.
"""

import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, explode, split

builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
for name in ["spark.driver.host", "spark.driver.bindAddress"]:
    builder = builder.config(name, "127.0.0.1")
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
# As for River, whatever has to be started is up before the clock starts.
spark.range(1000).selectExpr("sum(id)").collect()
spark.sparkContext.parallelize(range(10), 2).map(lambda x: x).count()
start = time.perf_counter()
if sys.argv[1] == "wordcount":
    lines = spark.read.option("recursiveFileLookup", "true").text(sys.argv[2])
    words = lines.select(explode(split(col("value"), r"\s+")).alias("word")).where(col("word") != "")
    result = len(words.groupBy("word").count().collect())
else:
    records = spark.sparkContext.binaryRecords(sys.argv[2], 100)
    ordered = records.map(lambda r: (bytes(r[:10]), bytes(r[10:]))).sortByKey(numPartitions=16)
    ordered.map(lambda kv: kv[0] + kv[1]).saveAsPickleFile(sys.argv[3])
    result = 0
print(f"measured {time.perf_counter() - start} {result}", flush=True)
sys.stdin.read()
spark.stop()
