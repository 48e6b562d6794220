DROP TABLE system_metrics;
DROP TABLE temp_uploads;
DROP TABLE search_index_cache;
DROP TABLE query_result_cache;
DROP TABLE file_metadata_cache;
