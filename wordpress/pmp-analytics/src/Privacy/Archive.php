<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

/**
 * The mesh's data about a person in WordPress's export format: a group for each section, an item for each row.
 */
final class Archive
{
    /** @var array<string, array<string, mixed>> Items by their contents: two archives of one person contain each row once. */
    private array $items = [];

    /**
     * @param array<mixed> $archive Rows by table, by section.
     */
    public function add(array $archive): void
    {
        foreach (array_intersect_key($archive, self::sections()) as $section => $tables) {
            foreach (is_array($tables) ? $tables : [] as $table => $rows) {
                foreach (array_filter((array) $rows, is_array(...)) as $row) {
                    $this->add_row((string) $section, (string) $table, $row);
                }
            }
        }
    }

    /**
     * @return list<array<string, mixed>>
     */
    public function items(): array
    {
        return array_values($this->items);
    }

    /**
     * @param array<mixed> $row
     */
    private function add_row(string $section, string $table, array $row): void
    {
        $data = [['name' => __('Table', 'pmp-analytics'), 'value' => esc_html($table)]];
        foreach ($row as $column => $value) {
            if ($value !== null && $value !== '' && $value !== []) {
                $text = is_string($value) ? $value : (string) wp_json_encode($value, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
                $data[] = ['name' => esc_html((string) $column), 'value' => esc_html($text)];
            }
        }
        $id = "{$table}-" . md5((string) wp_json_encode($row));
        $this->items["{$section} {$id}"] = [
            'group_id' => MeshData::ID . "-{$section}",
            'group_label' => self::sections()[$section],
            'item_id' => $id,
            'data' => $data,
        ];
    }

    /**
     * @return array<string, string> Labels of the sections.
     */
    private static function sections(): array
    {
        return [
            'wordpress_data' => __('Analytics: account', 'pmp-analytics'),
            'analytics_data' => __('Analytics: events', 'pmp-analytics'),
            'purchase_history' => __('Analytics: purchases', 'pmp-analytics'),
            'email_data' => __('Analytics: mailing lists', 'pmp-analytics'),
            'consents' => __('Analytics: choices', 'pmp-analytics'),
            'journeys' => __('Analytics: journeys', 'pmp-analytics'),
        ];
    }
}
