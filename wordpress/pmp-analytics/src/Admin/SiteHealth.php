<?php

declare(strict_types=1);

namespace PMP\Analytics\Admin;

use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_Config;
use PMP_Event_Queue;

/**
 * Reports stopped deliveries in Tools > Site Health: otherwise they would look like a shop without visitors.
 */
final class SiteHealth implements Registerable
{
    private const LATE_SECONDS = 3600.0;

    public function __construct(
        private readonly PMP_Config $config,
        private readonly PMP_Event_Queue $queue,
        private readonly Pause $pause,
    ) {
    }

    public function register(): void
    {
        Hook::filter('site_status_tests', [$this, 'add_test']);
    }

    /**
     * @param array<string, array<string, mixed>> $tests
     * @return array<string, array<string, mixed>>
     */
    public function add_test(array $tests): array
    {
        $tests['direct']['pmp_analytics'] = ['label' => __('PMP Analytics delivery', 'pmp-analytics'), 'test' => [$this, 'test']];
        return $tests;
    }

    /**
     * @return array<string, mixed> A test result for WordPress.
     */
    public function test(): array
    {
        [$status, $label, $text] = $this->verdict();
        return [
            'label' => $label,
            'status' => $status,
            'badge' => ['label' => __('PMP Analytics', 'pmp-analytics'), 'color' => $status === 'good' ? 'blue' : 'red'],
            'description' => '<p>' . esc_html($text) . '</p>',
            'actions' => sprintf(
                '<a href="%s">%s</a>',
                esc_url(admin_url('options-general.php?page=' . SettingsPage::SLUG)),
                esc_html__('View the outbox', 'pmp-analytics'),
            ),
            'test' => 'pmp_analytics',
        ];
    }

    /**
     * @return array{string, string, string} Status, label and description.
     */
    private function verdict(): array
    {
        if (! $this->config->is_complete()) {
            return [
                'recommended',
                __('PMP Analytics is not connected to the mesh', 'pmp-analytics'),
                __('Paste a code of pmp connect wordpress, or set address and both keys. Until then everything waits.', 'pmp-analytics'),
            ];
        }
        $state = $this->queue->state();
        if ($state->oldest_age > self::LATE_SECONDS) {
            /* translators: 1: number of messages, 2: a time such as "2 hours", 3: the last error. */
            $text = __('%1$s messages are waiting, the oldest for %2$s. %3$s', 'pmp-analytics');
            $since = human_time_diff(0, (int) $state->oldest_age);
            return [
                'critical',
                __('PMP Analytics does not deliver messages', 'pmp-analytics'),
                sprintf($text, number_format_i18n($state->waiting), $since, $this->pause->state()['reason']),
            ];
        }
        if ($state->set_aside > 0) {
            return [
                'recommended',
                __('The mesh rejected some messages', 'pmp-analytics'),
                /* translators: %s: number of messages. */
                sprintf(__('%s messages were rejected. See the settings page.', 'pmp-analytics'), number_format_i18n($state->set_aside)),
            ];
        }
        return [
            'good',
            __('PMP Analytics delivers messages', 'pmp-analytics'),
            __('What happens in the shop reaches the mesh within minutes.', 'pmp-analytics'),
        ];
    }
}
