<?php

declare(strict_types=1);

namespace PMP\Analytics\Admin;

use DateInterval;
use DateTimeImmutable;
use NumberFormatter;
use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP\Analytics\Reports\Answer;
use PMP\Analytics\Reports\Reports;
use PMP\Analytics\Reports\Viewer;
use PMP_Config;

/**
 * A widget on the front page of wp-admin: the last seven days beside the seven before. While the mesh is away it shows the last
 * figures; the page never waits for it longer than two seconds.
 */
final class DashboardWidget implements Registerable
{
    private const ID = 'pmp-analytics-figures';

    private const PATH = '/api/v1/analytics/dashboard';

    private const DAYS = 7;

    private const SECONDS = 2;

    public function __construct(
        private readonly Reports $reports,
        private readonly PMP_Config $config,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        Hook::action('wp_dashboard_setup', [$this, 'add_widget']);
    }

    public function add_widget(): void
    {
        if (Viewer::is_current_user() && $this->config->is_complete()) {
            wp_add_dashboard_widget(self::ID, __('PMP Analytics: the last 7 days', 'pmp-analytics'), [$this, 'show']);
        }
    }

    public function show(): void
    {
        $answer = $this->reports->ask(self::PATH, $this->query(), self::SECONDS);
        $values = $answer->values();
        if ($values === []) {
            /* translators: %s: why the mesh can't be reached. */
            $this->say(sprintf(__('The mesh could not be reached: %s', 'pmp-analytics'), $answer->text));
        } else {
            $this->show_figures((array) ($values['figures'] ?? []));
            $this->show_age($answer);
        }
        $link = DashboardPage::address() . '&range=7d';
        echo '<p><a href="' . esc_url($link) . '">' . esc_html__('Open the dashboard', 'pmp-analytics') . '</a></p>';
    }

    /**
     * @param array<mixed> $figures pmp.analytics.v1.Figure.
     */
    private function show_figures(array $figures): void
    {
        $names = [
            'net_revenue' => __('Net revenue', 'pmp-analytics'),
            'orders' => __('Orders', 'pmp-analytics'),
            'visitors' => __('Visitors', 'pmp-analytics'),
            'conversion_rate' => __('Conversion rate', 'pmp-analytics'),
        ];
        $by_key = array_column(array_filter($figures, is_array(...)), null, 'key');
        echo '<dl class="pmp-figures">';
        foreach ($names as $key => $name) {
            $unit = (string) ($by_key[$key]['unit'] ?? '');
            printf(
                '<div><dt>%s</dt><dd class="pmp-value">%s</dd><dd>%s</dd></div>',
                esc_html($name),
                esc_html($this->shown($by_key[$key]['value'] ?? null, $unit)),
                /* translators: %s: the figure of the seven days before. */
                esc_html(sprintf(__('before: %s', 'pmp-analytics'), $this->shown($by_key[$key]['compared'] ?? null, $unit))),
            );
        }
        echo '</dl>';
    }

    private function show_age(Answer $answer): void
    {
        if ($answer->is_last) {
            $age = human_time_diff((int) $answer->at, (int) $this->clock->now());
            /* translators: %s: a time such as "2 hours". */
            $this->say(sprintf(__('The mesh does not answer. These figures are %s old.', 'pmp-analytics'), $age));
        }
    }

    /**
     * Days of the shop's time zone, today included.
     */
    private function query(): string
    {
        $today = (new DateTimeImmutable('@' . (int) $this->clock->now()))->setTimezone(wp_timezone());
        $first = $today->sub(new DateInterval('P' . (self::DAYS - 1) . 'D'));
        return "from={$first->format('Y-m-d')}&to={$today->format('Y-m-d')}";
    }

    /**
     * @param string $unit `ratio`, the code of a currency, or what is counted.
     */
    private function shown(mixed $value, string $unit): string
    {
        if (! is_numeric($value)) {
            return '–';
        }
        return match (true) {
            $unit === 'ratio' => number_format_i18n(100 * (float) $value, 1) . ' %',
            preg_match('/^[A-Z]{3}$/D', $unit) === 1 => $this->amount((float) $value, $unit),
            default => number_format_i18n((float) $value),
        };
    }

    private function amount(float $value, string $currency): string
    {
        if (class_exists(NumberFormatter::class)) {
            return (string) (new NumberFormatter(get_user_locale(), NumberFormatter::CURRENCY))->formatCurrency($value, $currency);
        }
        // PHP's `intl` knows how many decimals a currency has.
        return number_format_i18n($value, 2) . " {$currency}";
    }

    private function say(string $text): void
    {
        echo '<p>' . esc_html($text) . '</p>';
    }
}
